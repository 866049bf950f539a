"""The training step: what our loop costs over a bare one, and what channels_last and a fused optimizer gain.

    python -m bench.step [--rounds 15] [--device cuda:0]

Cost of the loop: the same steps of the same network on the same ready batches, by `Learner.epoch` and by the shortest
PyTorch loop that does them; the network is so small that the difference is not lost in it. Real step:
EfficientNet-Lite0 at 96 px, batch 16, by `Learner.epoch` and by the naive loop (NCHW, for-loop Adam, a loss fetched
every step). All are interleaved, round by round; medians are printed, and ratios are what count. One thread, and the
processor time it takes: what else runs on the machine counts less. On a card it is the time that passes until the card
is done; the limits are those of a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from workers.images import Batch, ImageSet
from workers.loop import Learner, normaliser
from workers.model import initial_model, preprocessing
from workers.recipe import Recipe
from workers.repeatable import repeatable

CLASSES = 4
LOOP_LIMIT_US = 100
STEP_LIMIT = 0.80


class ReadyImages(ImageSet):
    """Batches that are there already: reading photos is measured by bench.data."""

    def __init__(self, batches: list[Batch]) -> None:
        self.ready = batches

    def steps(self, batch_size: int) -> int:
        assert all(len(batch.images) == batch_size for batch in self.ready)
        return len(self.ready)

    def batches(self, epoch: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        return iter(self.ready[start:])


def ready(recipe: Recipe, count: int) -> ReadyImages:
    random = np.random.default_rng(0)
    batches = []
    for place in range(count):
        pixels = random.integers(0, 256, (recipe.batch_size, recipe.image_size, recipe.image_size, 3), np.uint8)
        targets = torch.eye(CLASSES)[torch.from_numpy(random.integers(0, CLASSES, recipe.batch_size))]
        batches.append(Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), targets, (f"batch{place}",)))
    return ReadyImages(batches)


def ours(model: nn.Module, recipe: Recipe, images: ReadyImages, device: str) -> Callable[[], None]:
    learner = Learner(recipe, model, device, (0,))

    def epoch() -> None:
        for _ in learner.epoch(images, 0):
            pass

    return epoch


def bare(model: nn.Module, recipe: Recipe, images: ReadyImages, device: str) -> Callable[[], None]:
    """The shortest loop of the same steps, just as fast otherwise."""
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0, fused=True)
    normalise = normaliser(recipe, torch.device(device))

    def epoch() -> None:
        for batch in images.batches(0, recipe.batch_size):
            logits = model(normalise(batch.images.to(device)))
            loss = functional.cross_entropy(logits, batch.targets.to(device))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            loss.item()

    return epoch


def naive(model: nn.Module, recipe: Recipe, images: ReadyImages, device: str) -> Callable[[], None]:
    """The loop as one writes it who has not measured: float32 NCHW images, an Adam that goes from tensor to tensor."""
    model = model.to(memory_format=torch.contiguous_format).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0, foreach=False)
    pixels = preprocessing(recipe)
    mean, std = [torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (pixels.mean, pixels.std)]

    def epoch() -> None:
        for batch in images.batches(0, recipe.batch_size):
            floats = (batch.images.contiguous().to(device).float() / 255 - mean) / std
            loss = functional.cross_entropy(model(floats), batch.targets.to(device))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            loss.item()

    return epoch


class Small(nn.Module):
    """So little work that the loop's own is seen beside it."""

    pretrained_cfg: ClassVar = {"classifier": "head"}

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images).mean(dim=(2, 3)))
        return logits


def clock(device: str) -> float:
    """Processor seconds of this process; on a card, seconds that passed when it is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def interleaved(runs: list[Callable[[], None]], steps: int, rounds: int, device: str) -> list[list[float]]:
    """Seconds per step of each run in each round; a first round is not counted."""
    seconds: list[list[float]] = [[] for _ in runs]
    for place in range(rounds + 1):
        for run, times in zip(runs, seconds, strict=True):
            began = clock(device)
            run()
            if place:
                times.append((clock(device) - began) / steps)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    rounds, device = given.rounds, given.device
    plain = Recipe(weights="none", optimizer="adamw", clip="none", schedule="cosine", image_size=32, batch_size=4)
    with repeatable(device, threads=1):
        tiny = plain.model_copy(update={"model": "test_efficientnet"})
        images = ready(tiny, 50)
        loops = [make(Small(), tiny, images, device) for make in (ours, bare)]
        with_ours, without = interleaved(loops, 50, 4 * rounds, device)
        cost_us = 1e6 * statistics.median(a - b for a, b in zip(with_ours, without, strict=True))
        print(f"a step of the bare loop        {1e6 * statistics.median(without):9.0f} us")
        print(f"a step of ours                 {1e6 * statistics.median(with_ours):9.0f} us")
        print(f"our loop costs                 {cost_us:+9.0f} us a step   (limit +{LOOP_LIMIT_US})")

        real = plain.model_copy(update={"model": "tf_efficientnet_lite0", "image_size": 96, "batch_size": 16})
        images = ready(real, 3)
        loops = [make(initial_model(real, CLASSES, seed=0), real, images, device) for make in (ours, naive)]
        fast, slow = interleaved(loops, 3, rounds, device)
        ratio = statistics.median(a / b for a, b in zip(fast, slow, strict=True))
        print(f"a real step, naive             {1e3 * statistics.median(slow):9.1f} ms")
        print(f"a real step, ours              {1e3 * statistics.median(fast):9.1f} ms")
        print(f"ours / naive                   {ratio:9.2f}      (limit {STEP_LIMIT:.2f})")


if __name__ == "__main__":
    main()
