"""Memory that snapshots of a training are copied into: made once, touched before it is needed, used in turns.

The copy is all that training waits for. Into memory that was used before, it goes at the memory's speed; into new
memory it would take many times as long, for the system hands that out page by page.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from shared_store.backend import Content
from workers.state_file import Placed, header, part, placed, tensor_names


@dataclass(frozen=True)
class Staged:
    """A flattened state whose tensors lie in a buffer, in a state file's order."""

    tree: object
    places: Mapping[str, Placed]
    memory: memoryview

    def content(self, about: Mapping[str, Any], path: Sequence[str] = ()) -> Content:
        """The state (or the part of it below the keys of `path`) as a state file, whose bytes are not copied."""
        tree = part(self.tree, path)
        wanted, moved, runs, end = set(tensor_names(tree)), {}, list[tuple[int, int]](), 0
        for name, place in self.places.items():
            if name in wanted:
                moved[name] = replace(place, start=end, end=end + place.end - place.start)
                end = moved[name].end
                if runs and runs[-1][1] == place.start:
                    runs[-1] = runs[-1][0], place.end
                else:
                    runs.append((place.start, place.end))
        return Content([header(tree, moved, about), *(self.memory[first:last] for first, last in runs)])


class Buffer:
    """Touched memory for one snapshot after the other; pinned where a card copies into it by itself."""

    def __init__(self, size: int, pinned: bool) -> None:
        self.size, self._pinned = size, pinned
        self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=pinned).zero_()
        self._likeness: list[tuple[str, torch.dtype, torch.Size, tuple[int, ...]]] = []
        self._places: dict[str, Placed] = {}
        self._views: list[Tensor] = []

    @torch.no_grad()
    def fill(self, tree: object, tensors: Mapping[str, Tensor]) -> Staged:
        """Copy a flattened state in; it is free to change when this returns."""
        likeness = [(name, tensor.dtype, tensor.shape, tensor.stride()) for name, tensor in tensors.items()]
        if likeness != self._likeness:
            self._likeness, self._places = likeness, placed(tensors)
            self._views = [self._view(self._places[name]) for name in tensors]
        if tensors:
            torch._foreach_copy_(self._views, list(tensors.values()), non_blocking=self._pinned)
        if self._pinned:
            torch.cuda.current_stream().synchronize()
        return Staged(tree, self._places, self._memory.numpy().data)

    def _view(self, place: Placed) -> Tensor:
        return self._memory[place.start : place.end].view(place.dtype).view(place.shape)


class Staging:
    """`count` buffers, large enough for what `prepare` was last told; `maker` is where they are made."""

    def __init__(self, maker: Executor, pinned: bool, count: int = 2) -> None:
        self._maker, self._pinned, self._count = maker, pinned, count
        self._lock = threading.Lock()
        self._free: list[Buffer] = []
        self._size = -1
        self._made: Future[None] | None = None

    def prepare(self, size: int) -> None:
        """Begin to make buffers of `size` bytes unless those that are there are large enough."""
        if size > self._size:
            self._wait()
            self._size = size
            self._made = self._maker.submit(self._make, size)

    def take(self, size: int) -> Buffer:
        """A free buffer for `size` bytes, once it is made; every taker but one has given its own back."""
        self.prepare(size)
        self._wait()
        with self._lock:
            return self._free.pop()

    def give(self, buffer: Buffer) -> None:
        """Take a buffer back; one that has become too small is let go of."""
        with self._lock:
            if buffer.size == self._size:
                self._free.append(buffer)

    def _wait(self) -> None:
        if self._made is not None:
            self._made.result()

    def _make(self, size: int) -> None:
        with self._lock:
            self._free.clear()
        made = [Buffer(size, self._pinned) for _ in range(self._count)]
        with self._lock:
            self._free = made


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that the tensors of a flattened state take in a buffer."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
