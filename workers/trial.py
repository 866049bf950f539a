"""What a recipe's training takes on this machine, from a few steps on blank images: for a forecast before any run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from workers.images import Batch, ImageSet
from workers.loop import Learner, autocast, compute_dtype
from workers.model import initial_model
from workers.recipe import Recipe
from workers.repeatable import repeatable

_CALLS = 4
_LONG_SECONDS = 5.0


@dataclass(frozen=True)
class Trial:
    """Seconds of one optimizer step, and of predicting one image. Reading photos is in neither."""

    step_seconds: float
    image_seconds: float

    def epoch_seconds(self, recipe: Recipe, trained: int, scored: int) -> float:
        """An epoch that trains on `trained` images and validates on `scored`."""
        return -(-trained // recipe.batch_size) * self.step_seconds + scored * self.image_seconds


def this_device() -> str:
    """The first card where there is one, else the CPU; as torch says it."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def try_recipe(recipe: Recipe, classes: int, device: str, threads: int) -> Trial:
    """Train a few steps with random weights. UserError when timm has no such model; torch.OutOfMemoryError."""
    recipe = recipe.model_copy(update={"weights": "none", "head_epochs": 0})
    place, dtype = torch.device(device), compute_dtype(recipe, torch.device(device))
    with repeatable(device, threads):
        learner = Learner(recipe, initial_model(recipe, classes, 0), device, ("trial",))
        shape = (recipe.batch_size, 3, recipe.image_size, recipe.image_size)
        pixels = torch.zeros(shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        targets = torch.eye(classes)[torch.arange(recipe.batch_size) % classes]
        steps = learner.epoch(_Same(Batch(pixels, targets, ("trial",) * recipe.batch_size)), 0)
        step_seconds = _seconds(lambda: next(steps), place)
        images = torch.zeros(shape, device=place).contiguous(memory_format=torch.channels_last)
        learner.model.eval()
        with torch.inference_mode(), autocast(place, dtype):
            predicted_seconds = _seconds(lambda: learner.model(images), place)
    return Trial(step_seconds, predicted_seconds / recipe.batch_size)


class _Same(ImageSet):
    """The same batch for ever."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def steps(self, batch_size: int) -> int:
        return _CALLS + 2  # an epoch that does not end within the trial

    def batches(self, epoch: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        return iter([self._batch] * self.steps(batch_size))


def _seconds(act: Callable[[], object], place: torch.device) -> float:
    """The quickest of a few calls: the first allocates and chooses algorithms. One that takes long is enough.

    On a card the very first also loads its kernels, which may take longer than a hundred steps: it does not count.
    """
    if place.type == "cuda":
        act()
    quickest, left = math.inf, _CALLS
    while left > 0:
        _wait(place)
        began = time.perf_counter()
        act()
        _wait(place)
        seconds = time.perf_counter() - began
        quickest, left = min(quickest, seconds), left - 1 if seconds < _LONG_SECONDS else 0
    return quickest


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)
