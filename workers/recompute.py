"""Activations that are computed again in backward instead of kept: a fraction of the memory, the same bits.

timm's networks know how (`set_grad_checkpointing`, over torch.utils.checkpoint): only what lies between blocks is
kept. BatchNorm must not notice that a block runs twice: its running statistics take in every batch once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from shared_store.errors import UserError


def check_recomputing(model: nn.Module, name: str) -> None:
    """UserError for a network that cannot."""
    if not can_recompute(model):
        mend = "set recipe.checkpointing to false; a smaller recipe.micro_batch saves memory too"
        raise UserError(f"{name} cannot compute its activations again", where="recipe.checkpointing", mend=mend)


def can_recompute(model: nn.Module) -> bool:
    """Whether timm has taught this network to; it stays as it is."""
    try:
        with recomputing(model):
            return True
    except (AssertionError, AttributeError):  # timm asserts it, where a network has the method at all
        return False


@contextlib.contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """What runs forward in here keeps only what lies between blocks."""
    switch = cast(Any, model).set_grad_checkpointing
    switch(True)
    try:
        yield
    finally:
        switch(False)


@contextlib.contextmanager
def statistics_taken(batch_norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Forward and backward in here: BatchNorms took in their statistics forward, and leave them as they are."""
    before: list[tuple[_BatchNorm, float | None, Tensor | None]] = [
        (module, module.momentum, module.num_batches_tracked) for module in batch_norms
    ]
    for module, momentum, _ in before:
        module.num_batches_tracked = None
        module.momentum = 0.0 if momentum is not None else None
    try:
        yield
    finally:
        for module, momentum, count in before:
            module.momentum, module.num_batches_tracked = momentum, count
