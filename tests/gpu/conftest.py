"""What the tests of this folder need: a card. Where there is none, they are collected and skip."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def card() -> str:
    """The device to train and to predict on."""
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA card here")
    return "cuda:0"
