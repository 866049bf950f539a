"""Will this recipe fit this card? The worst moment of a training step, played with tensors that have no bytes.

torch's fake tensors go through the network, backward and the optimizer as real ones do, and what is alive at each
moment is counted. No card is touched and no arithmetic is done, so the number of images costs nothing.

    all of it = weights + optimizer + average + what libraries keep + what a step needs at its worst moment

Outside of that lies what the driver keeps, and what torch's allocator holds and cannot use: it gives back what it can
before it says that memory ran out, so the limit of a card is what is counted here and the driver's share.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workers.loop import autocast, compute_dtype
from workers.model import empty_model, prepare_to_train
from workers.optimize import create_optimizer
from workers.recipe import Recipe

LIBRARIES_MB = 96.0
"""What cuDNN and cuBLAS work in, within torch's memory: the middle of what docs/gpu.md's measurements leave over."""
DRIVER_MB = 512
"""What a card loses to the driver and the process; 741 MB on an H100, less on smaller cards."""
_AUTO = {"32 bits": torch.float32, "16 bits": torch.bfloat16}  # older cards, and Volta and later ones
_CPU = torch.device("cpu")
_BLOCK_BYTES = 512  # torch's allocator gives out no less, and only multiples
_STEPS_TO_ALL_STATE = 6  # Lookahead takes its copy of the weights at the sixth


@dataclass(frozen=True)
class TrainingMemory:
    """Of one fold on a card, in MB of 1e6 bytes: what is there all the time, and on top for each image of a step."""

    held_mb: float
    gradients_mb: float  # held too while the other parts of a batch that is cut into micro-batches come
    image_mb: float
    batch_size: int

    def tensors_mb(self, images: int) -> float:
        """What torch counts as allocated at the worst moment with `images` at once."""
        return self.held_mb + self.gradients_mb * (images < self.batch_size) + self.image_mb * images

    def card_mb(self, images: int) -> float:
        """The same with the driver's share: the smallest card that can do it."""
        return self.tensors_mb(images) + DRIVER_MB


def training_memory(recipe: Recipe, dtype: torch.dtype, classes: int = 2) -> TrainingMemory:
    """What training `recipe` takes of a card, convolutions in `dtype` (float32, or one of 16 bits).

    UserError where the recipe's model or optimizer is unknown.
    """
    model, images = empty_model(recipe, classes), recipe.micro_batch or recipe.batch_size
    state = _state_bytes(model, recipe)
    with FakeTensorMode(), _Meter() as meter:
        _without_bytes(model)
        prepare_to_train(model, head_only=False)
        weights = meter.live
        _forward_and_backward(model, dtype, torch.empty(images, 3, recipe.image_size, recipe.image_size), classes)
        step = meter.peak - weights
    held = weights + state + weights * (recipe.ema_decay > 0)  # the average is as large as the weights
    return TrainingMemory(held / 1e6 + LIBRARIES_MB, weights / 1e6, step / 1e6 / images, recipe.batch_size)


def memory_text(recipe: Recipe) -> str:
    """What a fold takes of a card in the precisions that `recipe` may train in, for people."""
    dtypes = _AUTO if recipe.precision == "auto" else {recipe.precision: compute_dtype(recipe, _CPU)}
    found = {name: training_memory(recipe, dtype) for name, dtype in dtypes.items()}

    def gigabytes(images: int) -> list[str]:
        return [f"{memory.card_mb(images) / 1e3:.1f} GB" for memory in found.values()]

    images = recipe.micro_batch or recipe.batch_size
    whole = ", ".join(f"{size} in {name}" for size, name in zip(gigabytes(images), found, strict=True))
    return whole + (f" (with micro_batch 1: {', '.join(gigabytes(1))})" if images > 1 else "")


class _Meter(TorchDispatchMode):
    """Counts the bytes of fake tensors that are alive, and their most."""

    def __init__(self) -> None:
        cast(Any, super()).__init__()  # not annotated in torch
        self.live = self.peak = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(
        self, call: Any, types: Any, positional: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        made = call(*positional, **(named or {}))
        for value in tree_leaves(made):
            if isinstance(value, FakeTensor):
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
    """Put fake tensors of the same shapes, layouts and types in the place of all weights and buffers."""
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


def _forward_and_backward(model: nn.Module, dtype: torch.dtype, images: Tensor, classes: int) -> None:
    with autocast(_CPU, dtype):
        logits = model(images.to(memory_format=torch.channels_last))
    loss = functional.cross_entropy(logits.float(), torch.empty(len(images), classes))
    torch.autograd.backward(loss)
