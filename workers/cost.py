"""What one image costs a trained model on this machine: milliseconds and megabytes of a forward pass at batch 1."""

from __future__ import annotations

import statistics
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WARM_UP = 2
_TIMED = 7


@dataclass(frozen=True)
class Cost:
    """`ms_per_image`: median of a few passes. `memory_mb`: most megabytes (1e6 bytes) of tensors at one time, weights
    included; as the card's allocator counts them, or as the living tensors add up on a CPU."""

    ms_per_image: float
    memory_mb: float


def measured_cost(model: nn.Module, image_size: int, device: torch.device, clock: Callable[[], float]) -> Cost:
    """Run a few passes of one grey image in the model's own precision. Leaves the model in evaluation mode."""
    model.eval()
    image = torch.zeros(1, 3, image_size, image_size, device=device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        memory = _peak_bytes(model, image)
        times = [_seconds(model, image, clock) for _ in range(_WARM_UP + _TIMED)]
    return Cost(1000 * statistics.median(times[_WARM_UP:]), memory / 1e6)


def _seconds(model: nn.Module, image: Tensor, clock: Callable[[], float]) -> float:
    began = clock()
    model(image).cpu()  # a copy to the host ends the work in flight
    return clock() - began


def _peak_bytes(model: nn.Module, image: Tensor) -> int:
    if image.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(image.device)
        before = torch.cuda.memory_allocated(image.device)  # the training's own state lies there too
        model(image)
        weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), image))
        return torch.cuda.max_memory_allocated(image.device) - before + weights
    living = _Living()
    living.add([*model.parameters(), *model.buffers(), image])
    with _Watch(living):
        model(image)
    return living.peak_bytes


class _Living:
    """The storages that are alive, added up; each is taken off when it is freed."""

    def __init__(self) -> None:
        self.bytes = self.peak_bytes = 0
        self._known: set[int] = set()

    def add(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known.add(key)
                self.bytes += size
                weakref.finalize(storage, self._freed, key, size)
        self.peak_bytes = max(self.peak_bytes, self.bytes)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size


class _Watch(TorchDispatchMode):
    """Shows `living` what every operation makes."""

    def __init__(self, living: _Living) -> None:
        TorchDispatchMode.__init__(self)
        self.living = living

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.living.add([leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)])
        return result
