"""What training takes of a card: memory by batch size, which batches fit smaller cards, images a second.

    python -m bench.card [--model tf_efficientnet_b4 --image-size 600 --batches 1 2 3 4 --device cuda:0 --steps 20]

Per precision and batch size, steps of the competition's recipe with random weights, and an evaluation at twice the
batch, as folds have them:

  tensors    the most bytes of tensors at one time
  allocator  the most that torch's allocator took from the card for them
  images/s   with batches that are there already, and with photos that are read, decoded and augmented on the way

A smaller card is this one with a limit to what this process may allocate: its memory less DRIVER_MB for what the
driver and the libraries keep outside of torch. It is no such card: its kernels may want more workspace or less.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from bench.step import CLASSES, ready
from workers.footprint import DRIVER_MB
from workers.images import ImageSet
from workers.loop import Learner, compute_dtype, logits_of
from workers.model import initial_model
from workers.recipe import Recipe
from workers.repeatable import repeatable

CARDS_GIB = (6, 8)
DECODERS = 4
_WARM_UP = 3
_ALL_MADE = 8  # steps: lookahead makes its own copy of the weights at the sixth
_PHOTOS = 64


class Photos:
    """JPEG photos as a snapshot gives them, by image id."""

    def __init__(self, side: int) -> None:
        random = np.random.default_rng(0)
        self.files: dict[str, bytes] = {}
        for place in range(_PHOTOS):
            coarse = random.integers(0, 256, (side // 20, side // 15, 3), np.uint8)
            photo = cv2.resize(coarse, (side, side * 3 // 4), interpolation=cv2.INTER_CUBIC)
            self.files[f"photo{place}"] = cv2.imencode(".jpg", photo)[1].tobytes()

    def image_bytes(self, image_id: str) -> bytes:
        return self.files[image_id]


@dataclass(frozen=True)
class Took:
    """What some steps and an evaluation took of the card."""

    tensors_mb: float
    allocator_mb: float
    images_per_second: float


def image_set(photos: Photos, recipe: Recipe) -> ImageSet:
    targets = np.eye(CLASSES, dtype=np.float32)[np.arange(_PHOTOS) % CLASSES]
    return ImageSet(
        photos, list(photos.files), targets,
        image_size=recipe.image_size, augmentation=recipe.augmentation, seed=0, threads=DECODERS,
    )  # fmt: skip


@contextmanager
def limited(device: str, limit_bytes: int | None) -> Iterator[None]:
    """This process has an empty card, and at most `limit_bytes` of it."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(1.0 if limit_bytes is None else limit_bytes / total, device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def trained(recipe: Recipe, device: str, steps: int, photos: Photos, images: ImageSet) -> Took:
    """Take `steps` steps on `images` (epoch after epoch), then evaluate."""
    learner = Learner(recipe, initial_model(recipe, CLASSES, 0), device, (0,))
    done, epoch, began = 0, 0, time.perf_counter()
    while done < steps:
        for _ in learner.epoch(images, epoch):
            done += 1
            if done == _WARM_UP:
                torch.cuda.synchronize(device)
                began = time.perf_counter()
            if done == steps:
                break
        epoch += 1
    torch.cuda.synchronize(device)
    seconds = time.perf_counter() - began
    logits_of(learner.model, photos, list(photos.files)[: 2 * recipe.batch_size], recipe=recipe, device=device)
    return Took(
        torch.cuda.max_memory_allocated(device) / 1e6,
        torch.cuda.max_memory_reserved(device) / 1e6,
        (steps - _WARM_UP) * recipe.batch_size / seconds,
    )


def fitting(recipe: Recipe, device: str, limit_bytes: int, photos: Photos) -> bool:
    try:
        with limited(device, limit_bytes):
            trained(recipe, device, _ALL_MADE, photos, ready(recipe, _ALL_MADE))
    except torch.OutOfMemoryError:
        return False
    return True


def report(recipes: Sequence[Recipe], device: str, steps: int, photos: Photos) -> None:
    print("precision  batch   tensors MB  allocator MB   images/s   with photos   fits")
    for recipe in recipes:
        with limited(device, None):
            took = trained(recipe, device, steps, photos, ready(recipe, steps))
        with limited(device, None):
            read = trained(recipe, device, steps, photos, image_set(photos, recipe))
        limits = {size: size * 2**30 - DRIVER_MB * 10**6 for size in CARDS_GIB}
        fits = [f"{size} GB" for size, limit in limits.items() if fitting(recipe, device, limit, photos)]
        print(
            f"{recipe.precision:9}  {recipe.batch_size:5}   {took.tensors_mb:10.0f}  {took.allocator_mb:12.0f}"
            f"   {took.images_per_second:8.1f}   {read.images_per_second:11.1f}   {', '.join(fits) or '-'}",
            flush=True,
        )


def outside_mb(device: str) -> float:
    """What of the card is taken and not by torch's allocator: by driver and libraries, if nobody else is on it."""
    free, total = torch.cuda.mem_get_info(device)
    return (total - free - torch.cuda.memory_reserved(device)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tf_efficientnet_b4")
    parser.add_argument("--image-size", type=int, default=600)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--precisions", nargs="+", default=["float32", "auto"])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    plain = Recipe(model=given.model, weights="none", image_size=given.image_size)
    print(
        f"{torch.cuda.get_device_name(given.device)}, torch {torch.__version__}, {given.model} at {given.image_size} px"
    )
    print(f"auto is {compute_dtype(plain, torch.device(given.device))} here")
    recipes = [
        plain.model_copy(update={"precision": precision, "batch_size": batch})
        for precision in given.precisions
        for batch in given.batches
    ]
    with repeatable(given.device, threads=1):
        report(recipes, given.device, given.steps, Photos(given.image_size))
    print(f"outside torch's allocator: {outside_mb(given.device):.0f} MB")


if __name__ == "__main__":
    main()
