"""Random numbers for simulations from one integer: the same on every machine, in every version of everything. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

_Item = TypeVar("_Item")
_MASK = 2**64 - 1


class Chance:
    """SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators")."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def random(self) -> float:
        """From 0 to below 1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((mixed ^ (mixed >> 31)) >> 11) / 2**53

    def normal(self) -> float:
        """Of mean 0 and standard deviation 1 (Box and Muller 1958)."""
        radius = math.sqrt(-2 * math.log(1 - self.random()))
        return radius * math.cos(2 * math.pi * self.random())

    def happens(self, probability: float) -> bool:
        return self.random() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both of them possible."""
        return low + int((high - low + 1) * self.random())

    def pick(self, items: Sequence[_Item]) -> _Item:
        return items[int(len(items) * self.random())]
