"""Will this recipe fit this card? The worst moment of a training step, played with tensors that have no bytes.

torch's fake tensors (meta tensors where nothing is cast) go through the network, backward and the optimizer as real
ones do, and what is alive at each moment is counted. No card is touched and no arithmetic is done, so the number of
images costs nothing.

    all of it = weights + optimizer + average + what libraries keep + what a step needs at its worst moment

Outside of that lies what the driver keeps, and what torch's allocator holds and cannot use: it gives back what it can
before it says that memory ran out, so the limit of a card is what is counted here and the driver's share. docs/gpu.md
tells what is known of the rest.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workers.footprint import Footprint, TrainingMemory
from workers.loop import autocast
from workers.model import empty_model, prepare_to_train
from workers.optimize import create_optimizer
from workers.recipe import Recipe
from workers.recompute import can_recompute, recomputing

LIBRARIES_MB = 96.0
"""What cuDNN and cuBLAS work in, within torch's memory: the middle of what docs/gpu.md's measurements leave over."""
_CPU = torch.device("cpu")
_BLOCK_BYTES = 512  # torch's allocator gives out no less, and only multiples
_STEPS_TO_ALL_STATE = 6  # Lookahead takes its copy of the weights at the sixth
_PIXEL_BYTES = 3 * 4


@cache
def footprint(recipe: Recipe) -> Footprint | None:
    """What a fold of `recipe` takes of a card, in 32 and in 16 bits: seconds of processor time, once a recipe.

    None for a network that tensors without bytes do not pass. UserError where the model or optimizer is unknown.
    """
    model = empty_model(recipe, classes=2)
    state = _state_bytes(model, recipe)
    try:
        full, half = (_training_memory(model, recipe, dtype, state) for dtype in (torch.float32, torch.bfloat16))
    except (RuntimeError, TypeError, ValueError):  # torch's words for what needs values
        return None
    return Footprint(full, half, recipe.precision, recipe.micro_batch)


def spared_footprint(recipe: Recipe) -> Footprint | None:
    """The same with `checkpointing`; None where that is no other choice, or the network does not know how."""
    if recipe.checkpointing or not can_recompute(empty_model(recipe, classes=2)):
        return None
    return footprint(recipe.model_copy(update={"checkpointing": True}))


def training_memory(recipe: Recipe, dtype: torch.dtype) -> TrainingMemory:
    """What training `recipe` takes of a card, convolutions in `dtype` (float32, or one of 16 bits).

    UserError where the recipe's model or optimizer is unknown.
    """
    model = empty_model(recipe, classes=2)
    return _training_memory(model, recipe, dtype, _state_bytes(model, recipe))


def _training_memory(model: nn.Module, recipe: Recipe, dtype: torch.dtype, state: int) -> TrainingMemory:
    """`model` is left without weights. `state`: bytes of the optimizer's."""
    side, images = recipe.image_size, recipe.micro_batch or recipe.batch_size
    without_bytes = FakeTensorMode() if dtype != torch.float32 else torch.device("meta")
    with without_bytes, _Meter() as meter:
        _without_bytes(model)
        prepare_to_train(model, head_only=False)
        weights = meter.live
        with recomputing(model) if recipe.checkpointing else contextlib.nullcontext():
            loss = _forward(model, dtype, torch.empty(images, 3, side, side))
        forward = meter.peak - weights
        torch.autograd.backward(loss)
        step = meter.peak - weights
    held = weights + state + weights * (recipe.ema_decay > 0)  # the average is as large as the weights
    image_mb = max(forward, step - weights) / 1e6 / images  # gradients are as large as the weights
    whole_mb = step / 1e6 * (recipe.batch_size / images)
    waiting_mb = _PIXEL_BYTES * side * side / 1e6
    return TrainingMemory(held / 1e6 + LIBRARIES_MB, whole_mb, weights / 1e6, image_mb, waiting_mb, recipe.batch_size)


class _Meter(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, and their most."""

    def __init__(self) -> None:
        cast(Any, super()).__init__()  # not annotated in torch
        self.live = self.peak = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(
        self, call: Any, types: Any, positional: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        made = call(*positional, **(named or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor):
                self._count(value)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known[storage] = size = _block_bytes(storage.nbytes())
        weakref.finalize(storage, self._gone, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _gone(self, size: int) -> None:
        self.live -= size


def _without_bytes(model: nn.Module) -> None:
    """Put tensors of the same shapes, layouts and types in the place of all weights and buffers; no gradients."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(_like(weight), weight.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, _like(buffer))


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)


def _state_bytes(model: nn.Module, recipe: Recipe) -> int:
    """What the optimizer remembers of all weights once it has all that it ever will: tried with one of each shape."""
    shapes = Counter((parameter.shape, parameter.dtype) for parameter in model.parameters())
    samples = nn.ParameterList(nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape, dtype in shapes)
    optimizer = create_optimizer(samples, recipe)
    for _ in range(_STEPS_TO_ALL_STATE):
        for sample in samples:
            sample.grad = torch.zeros_like(sample)
        optimizer.step()
    numbered = [sample for group in optimizer.param_groups for sample in group["params"]]
    state = optimizer.state_dict()["state"]
    return sum(
        shapes[sample.shape, sample.dtype] * sum(_block_bytes(value.nbytes) for value in _tensors(state.get(i)))
        for i, sample in enumerate(numbered)
    )


def _tensors(state: object) -> list[Tensor]:
    """The tensors that lie where the weights do: a count of steps does not."""
    return [value for value in tree_leaves(state) if isinstance(value, Tensor) and value.dim() > 0]


def _block_bytes(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def _forward(model: nn.Module, dtype: torch.dtype, images: Tensor) -> Tensor:
    with autocast(_CPU, dtype):
        logits: Tensor = model(images.to(memory_format=torch.channels_last))
    return functional.cross_entropy(logits.float(), torch.empty_like(logits, dtype=torch.float32))
