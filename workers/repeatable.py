"""What makes torch give the same bits again: its thread count, deterministic algorithms, float32 with all its bits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import deterministic


@contextlib.contextmanager
def repeatable(device: str, threads: int) -> Iterator[None]:
    """Torch on `threads` threads and deterministic algorithms; as before afterwards.

    A GPU kernel that has no deterministic form only warns, for equal bits on a GPU are not promised.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without
    threads_before = torch.get_num_threads()
    mode = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = deterministic  # its one setting is put into the module where no type checker sees it
    filling = settings.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    settings.fill_uninitialized_memory = False  # finds bugs in kernels, costs time
    try:
        with whole_float32():
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
        settings.fill_uninitialized_memory = filling


@contextlib.contextmanager
def whole_float32() -> Iterator[None]:
    """Convolutions in float32 with all of its bits: by default cuDNN rounds them to 10 of 23 (TF32) from Ampere on.

    Then logits would depend on the card, and on how photos are batched by more than `predictor.BATCH_TOLERANCE`.
    """
    cudnn: Any = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
