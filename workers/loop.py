"""The training loop: steps of an epoch from any step on, and logits of any images. Touches no storage.

What a step does is a function of (recipe, seed, epoch, step, the state before it): the order of images, their
augmentation, mixing and dropout all draw from numbers derived from these, never from what ran before. So a run that is
interrupted and resumed takes the very steps of one left alone.

- The gradient of a step is that of the mean loss over its batch, however the batch is cut into micro-batches.
  BatchNorm, though, normalises over each micro-batch: `micro_batch` changes its statistics, and so the result.
- A part of one image that is left over from cutting (never one that the recipe asks for) has no batch to normalise
  over: it runs on BatchNorm's running statistics.
- Losses stay on the device; they are looked at every few steps, so a card never waits for Python.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from workers.images import Batch, ImageSet, ImageSource, Normaliser, evaluation_batches
from workers.mixing import mixed
from workers.model import (
    WeightAverage,
    batch_norms,
    load_state,
    prepare_to_train,
    preprocessing,
    running_statistics,
    seed_of,
)
from workers.optimize import (
    RANGER,
    centralize_gradients,
    clip_gradients,
    create_optimizer,
    learning_rate,
    set_learning_rate,
)
from workers.recipe import Recipe
from workers.recompute import recomputing, statistics_taken

_LOOK_EVERY_STEPS = {"cpu": 1}
_LOOK_EVERY_STEPS_ON_CARDS = 16
_STEP_STRIDE = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: neighbouring steps get seeds far apart
_SHOWN_IDS, _SHOWN_OF_ID = 4, 12  # in words: enough to find them in folds.csv


class NanLossError(Exception):
    """The loss or the weights stopped being finite numbers: at which optimizer step, on which images."""

    def __init__(self, step: int, image_ids: Sequence[str]) -> None:
        super().__init__(step, tuple(image_ids))
        self.step = step
        self.image_ids = tuple(image_ids)

    def __str__(self) -> str:
        some = ", ".join(name[:_SHOWN_OF_ID] for name in self.image_ids[:_SHOWN_IDS])
        more = f" and {len(self.image_ids) - _SHOWN_IDS} more" if len(self.image_ids) > _SHOWN_IDS else ""
        return f"the loss is not a finite number at step {self.step}, on images {some}{more}"


@dataclass
class Tally:
    """What an epoch has seen so far: the loss summed over its images, and how many they were."""

    loss: float = 0.0
    images: int = 0

    @property
    def mean_loss(self) -> float | None:
        return self.loss / self.images if self.images else None


class Learner:
    """A model with all that training it changes: optimizer, running average, loss scale, the epoch's tally."""

    def __init__(self, recipe: Recipe, model: nn.Module, device: str, stream: Sequence[object]) -> None:
        """`stream` names this run among those of one seed (the folds it holds out)."""
        self.recipe = recipe
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.optimizer = create_optimizer(model, recipe)
        self.average = WeightAverage(model, recipe.ema_decay) if recipe.ema_decay > 0 else None
        self.dtype = compute_dtype(recipe, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.tally = Tally()
        self.last: tuple[int, tuple[str, ...]] = (0, ())  # the newest step looked at: its number, its images
        self._stream = tuple(stream)
        self._parameters = list(model.parameters())
        self._batch_norms = batch_norms(model)
        self._normalise = normaliser(recipe, self.device)
        self._unseen: list[tuple[int, tuple[str, ...], Tensor]] = []
        self._look_every = _LOOK_EVERY_STEPS.get(self.device.type, _LOOK_EVERY_STEPS_ON_CARDS)

    def epoch(self, images: ImageSet, epoch: int, start: int = 0) -> Iterator[int]:
        """Take the steps `start`, `start` + 1 ... of `epoch`; after each, yield how many of the epoch are done.

        Raises NanLossError, at the latest when the losses are next looked at.
        """
        prepare_to_train(self.model, head_only=epoch < self.recipe.head_epochs)
        if start == 0:
            self.tally = Tally()
        self._epoch_seed = seed_of("steps", self.recipe.seed, *self._stream, epoch)
        steps = images.steps(self.recipe.batch_size)
        for step, batch in enumerate(images.batches(epoch, self.recipe.batch_size, start), start):
            set_learning_rate(self.optimizer, learning_rate(self.recipe, epoch, step, steps))
            self._step(batch, step, epoch * steps + step)
            if len(self._unseen) >= self._look_every:
                self.look()
            yield step + 1
        self.check()

    def look(self) -> None:
        """Fetch the losses of the steps since the last look into the tally. Raises NanLossError."""
        unseen, self._unseen = self._unseen, []
        one = len(unseen) < 2
        losses = [loss.item() for _, _, loss in unseen] if one else torch.stack([u[2] for u in unseen]).tolist()
        for (step, image_ids, _), loss in zip(unseen, losses, strict=True):
            if not math.isfinite(loss):
                raise NanLossError(step, image_ids)
            self.tally.loss += loss * len(image_ids)
            self.tally.images += len(image_ids)
            self.last = (step, image_ids)

    def check(self) -> None:
        """Look, and make sure that the weights are finite too: nothing else may be kept. Raises NanLossError."""
        self.look()
        values = [v for v in self.model.state_dict().values() if v.is_floating_point()]
        if not torch.stack(torch._foreach_norm(values, ord=float("inf"))).isfinite().all():
            raise NanLossError(*self.last)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as nested tables of tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "tally": dataclasses.asdict(self.tally),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken of, to the bit at an equal precision.

        ValueError when it is another model's or optimizer's.
        """
        load_state(self.model, state["model"])
        if self.average is not None:
            load_state(self.average.module, state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # a card that needs no loss scale leaves none; one that does begins with the default
            self.scaler.load_state_dict(state["scaler"])
        self.tally = Tally(**state["tally"])
        self._unseen = []

    def _step(self, batch: Batch, step: int, number: int) -> None:
        seed = (self._epoch_seed + step * _STEP_STRIDE) % 2**63
        _seed_device(self.device, seed)
        images = self._normalise(batch.images.to(self.device, non_blocking=True))
        targets = batch.targets.to(self.device, non_blocking=True)
        images, targets = mixed(images, targets, self.recipe, seed)
        loss = self._backward(images, targets)
        self.scaler.unscale_(self.optimizer)
        clip_gradients(self._parameters, self.recipe)
        if self.recipe.optimizer == RANGER:
            centralize_gradients(self._parameters)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(number + 1)
        self._unseen.append((number, batch.image_ids, loss))

    def _backward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Leave the gradient of the batch's mean loss in the weights, part by part; the mean loss, detached."""
        count, part = len(images), self.recipe.micro_batch or self.recipe.batch_size
        parts = [(images, targets)]
        if count > part:
            parts = list(zip(torch.split(images, part), torch.split(targets, part), strict=True))
        total: Tensor | None = None
        for some_images, some_targets in parts:
            alone = len(some_images) == 1 < part
            with running_statistics(self._batch_norms) if alone else contextlib.nullcontext():
                loss = self._loss(some_images, some_targets)
                if len(parts) > 1:
                    loss = loss * (len(some_images) / count)
                with statistics_taken(self._batch_norms) if self.recipe.checkpointing else contextlib.nullcontext():
                    torch.autograd.backward(self.scaler.scale(loss))
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None, "a batch without images"
        return total

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy against soft targets [n, classes], smoothed: the mean over the images."""
        sparing = recomputing(self.model) if self.recipe.checkpointing else contextlib.nullcontext()
        with autocast(self.device, self.dtype), sparing:
            logits = self.model(images)
        return functional.cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)


def auto_bits(device: torch.device) -> int:
    """The bits that `precision: auto` trains in there: 16 or 32."""
    return 32 if compute_dtype(Recipe(precision="auto"), device) == torch.float32 else 16


def compute_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """What convolutions compute in: `auto` is bfloat16 from Ampere on, float16 from Volta on, else float32."""
    if recipe.precision != "auto":
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[recipe.precision]
    if device.type != "cuda":
        return torch.float32
    capability = torch.cuda.get_device_capability(device)
    return torch.bfloat16 if capability >= (8, 0) else torch.float16 if capability >= (7, 0) else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """Mixed precision in `dtype`; for float32 nothing at all."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def normaliser(recipe: Recipe, device: torch.device) -> Normaliser:
    pixels = preprocessing(recipe)
    return Normaliser(pixels.mean, pixels.std, device)


def logits_of(
    model: nn.Module, source: ImageSource, image_ids: Sequence[str], *, recipe: Recipe, device: str, threads: int = 0
) -> NDArray[np.float32]:
    """Logits float32 [n, classes] of images as they are (resized and padded only), rows as `image_ids`."""
    assert image_ids, "there are no images to predict"
    place = torch.device(device)
    normalise, dtype = normaliser(recipe, place), compute_dtype(recipe, place)
    batch_size = 2 * (recipe.micro_batch or recipe.batch_size)
    model.eval()
    parts: list[Tensor] = []
    with torch.inference_mode(), autocast(place, dtype):
        for pixels, _ in evaluation_batches(source, image_ids, recipe.image_size, batch_size, threads):
            parts.append(model(normalise(pixels.to(place, non_blocking=True))).float())
    return np.asarray(torch.cat(parts).cpu().numpy(), dtype=np.float32)


def _seed_device(device: torch.device, seed: int) -> None:
    """Seed what dropout draws from, on the device that draws."""
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
