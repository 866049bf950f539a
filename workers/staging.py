"""Memory that snapshots of a training are copied into: made once, touched before it is needed, used in turns.

The copy is all that training waits for. Into memory that was used before, it goes at the memory's speed; into new
memory it would take many times as long, for the system hands that out page by page.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from shared_store.backend import Content
from workers.state_file import Layout, Placed, part, placed, tensor_names

Runs = Sequence[tuple[int, int]]
"""Where bytes begin and end in a buffer, one run after the other."""


class Likeness:
    """What all states of one training have in common: their tensors' names, types and shapes, and so their layouts."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._key = self._key_of(tensors)
        self.places = placed(tensors)
        self._layouts: dict[tuple[str, ...], tuple[Layout, Runs]] = {}

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        return self._key_of(tensors) == self._key

    def layout(self, tree: object, path: tuple[str, ...]) -> tuple[Layout, Runs]:
        """The state file of the part of `tree` below the keys of `path`, and where its bytes lie in a buffer."""
        if path not in self._layouts:
            self._layouts[path] = self._laid_out(set(tensor_names(part(tree, path))))
        return self._layouts[path]

    def _laid_out(self, names: Set[str]) -> tuple[Layout, Runs]:
        moved, runs, end = dict[str, Placed](), list[tuple[int, int]](), 0
        for name, place in self.places.items():
            if name in names:
                moved[name] = replace(place, start=end, end=end + place.end - place.start)
                end = moved[name].end
                if runs and runs[-1][1] == place.start:
                    runs[-1] = runs[-1][0], place.end
                else:
                    runs.append((place.start, place.end))
        return Layout(moved), runs

    def _key_of(self, tensors: Mapping[str, Tensor]) -> object:
        return [(name, tensor.dtype, tensor.shape, tensor.stride()) for name, tensor in tensors.items()]


@dataclass(frozen=True)
class Staged:
    """A flattened state whose tensors lie in a buffer, in a state file's order."""

    tree: object
    likeness: Likeness
    memory: memoryview

    def content(self, about: Mapping[str, Any], path: Sequence[str] = ()) -> Content:
        """The state (or the part of it below the keys of `path`) as a state file, whose bytes are not copied."""
        layout, runs = self.likeness.layout(self.tree, tuple(path))
        header = layout.header(part(self.tree, path), about)
        return Content([header, *(self.memory[first:last] for first, last in runs)])


class Buffer:
    """Touched memory for one snapshot after the other; pinned where a card copies into it by itself.

    Else `helper` has a thread that copies one half: one alone does not use all of the memory's speed.
    """

    def __init__(self, size: int, pinned: bool, helper: Executor) -> None:
        self.size, self._pinned, self._helper = size, pinned, helper
        self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=pinned).zero_()
        self._likeness: Likeness | None = None
        self._views: list[Tensor] = []
        self._halfway = 0

    @torch.no_grad()
    def fill(self, tree: object, tensors: Mapping[str, Tensor]) -> Staged:
        """Copy a flattened state in; it is free to change when this returns."""
        if self._likeness is None or not self._likeness.fits(tensors):
            self._likeness = Likeness(tensors)
            self._views = [self._view(self._likeness.places[name]) for name in tensors]
            ends = list(itertools.accumulate(view.nbytes for view in self._views))
            self._halfway = bisect.bisect(ends, self.size // 2)
        given = list(tensors.values())
        if self._pinned and given:  # the card copies by itself
            torch._foreach_copy_(self._views, given, non_blocking=True)
            torch.cuda.current_stream().synchronize()
        elif given:
            first = self._halfway
            rest = self._helper.submit(_copy, self._views[first:], given[first:])
            _copy(self._views[:first], given[:first])
            rest.result()
        return Staged(tree, self._likeness, self._memory.numpy().data)

    def _view(self, place: Placed) -> Tensor:
        return self._memory[place.start : place.end].view(place.dtype).view(place.shape)


@torch.no_grad()
def _copy(to: list[Tensor], tensors: list[Tensor]) -> None:
    if tensors:
        torch._foreach_copy_(to, tensors)


class Staging:
    """`count` buffers, large enough for what `prepare` was last told; `maker` makes them, and helps to fill them."""

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
        made = [Buffer(size, self._pinned, self._maker) for _ in range(self._count)]
        with self._lock:
            self._free = made


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that the tensors of a flattened state take in a buffer."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
