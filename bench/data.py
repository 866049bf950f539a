"""Decode + augmentation + to tensor, images a second on one core: ours beside the recipe author's way, interleaved.

    python -m bench.data [--rounds 9]

Both start from the same prepared photos (longest side 600, JPEG 95) and apply the recipe's list of augmentations at
600 px. The author's way: cv2.imread, albumentations' stock transforms, normalisation in numpy, a float32 NCHW tensor.
Ours ends with uint8 channels_last batches; what the device then pays for normalisation is timed and counted as ours.
Photos: crops of scikit-learn's two sample photographs. Ratios are what count; seconds are this machine's.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import torch
from sklearn.datasets import load_sample_images

from workers.augment import TrainingTransform
from workers.decode import decode
from workers.images import ImageSet, Normaliser
from workers.recipe import Augmentation

SIDE = 600
PHOTOS = 30
BATCH = 3
MEAN = STD = (0.5, 0.5, 0.5)


class Folder:
    """An image source over plain files, as `workers.images` wants one."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = {path.name: path for path in paths}

    def image_bytes(self, image_id: str) -> bytes:
        return self.paths[image_id].read_bytes()


def write_photos(folder: Path) -> list[Path]:
    """PHOTOS prepared photos of varied shape, longest side SIDE."""
    decide = random.Random(0)
    originals = load_sample_images().images
    paths = []
    for place in range(PHOTOS):
        original = originals[place % len(originals)]
        height, width = original.shape[:2]
        rows, columns = decide.randint(height // 2, height), decide.randint(width // 2, width)
        top, left = decide.randint(0, height - rows), decide.randint(0, width - columns)
        crop = original[top : top + rows, left : left + columns]
        scale = SIDE / max(rows, columns)
        photo = cv2.resize(crop, (round(columns * scale), round(rows * scale)), interpolation=cv2.INTER_AREA)
        path = folder / f"photo{place:02d}.jpg"
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
        path.write_bytes(cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), quality)[1].tobytes())
        paths.append(path)
    return paths


def author_pipeline() -> Any:
    """The recipe's list with albumentations' stock transforms, in the published order."""
    a = albumentations
    return a.Compose(
        [
            a.LongestMaxSize(SIDE),
            a.OneOf(
                [
                    a.PadIfNeeded(SIDE, SIDE, border_mode=cv2.BORDER_WRAP, p=0.7),
                    a.PadIfNeeded(SIDE, SIDE, border_mode=cv2.BORDER_CONSTANT, p=0.3),
                ],
                p=1,
            ),
            a.Affine(
                translate_percent=(-0.1, 0.1),
                scale=(0.9, 1.1),
                rotate=(-20, 20),
                border_mode=cv2.BORDER_REFLECT_101,
                keep_ratio=True,
                p=0.6,
            ),
            a.HorizontalFlip(p=0.5),
            a.OneOf(
                [
                    a.RandomBrightnessContrast(0.1, 0, p=1),
                    a.RandomBrightnessContrast(0, 0.1, p=1),
                    a.RandomGamma((50, 150), p=1),
                    a.HueSaturationValue(10, 10, 10, p=1),
                ],
                p=0.8,
            ),
            a.Resize(SIDE, SIDE),
            a.OneOf(
                [
                    a.MotionBlur((3, 3), p=1),
                    a.MedianBlur((3, 3), p=1),
                    a.GaussianBlur((3, 3), p=1),
                    a.GaussNoise((10**0.5 / 255, 50**0.5 / 255), p=1),
                ],
                p=0.8,
            ),
        ],
        seed=0,
    )


def author_epoch(paths: list[Path], pipeline: Any) -> None:
    for start in range(0, len(paths), BATCH):
        tensors = []
        for path in paths[start : start + BATCH]:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            image = pipeline(image=image)["image"]
            normal = (image.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
            tensors.append(torch.from_numpy(normal.transpose(2, 0, 1).copy()))
        torch.stack(tensors)


def our_epoch(images: ImageSet, normalise: Normaliser | None, epoch: int) -> None:
    for batch in images.batches(epoch, BATCH):
        if normalise is not None:
            normalise(batch.images)


def our_decode(source: Folder) -> None:
    for name in source.paths:
        decode(source.image_bytes(name), SIDE)


def our_transform(decoded: list[Any], transform: TrainingTransform, epoch: int) -> None:
    for place, image in enumerate(decoded):
        transform(image, epoch * PHOTOS + place)


def measured(ways: dict[str, Callable[[int], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each way; every round runs all of them, one after the other, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            begin = time.process_time()
            way(turn)
            if turn:
                seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="passes over the photos, of each way in turn")
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(Path(folder))
        source, names = Folder(paths), [path.name for path in paths]
        images = ImageSet(
            source,
            names,
            np.zeros((PHOTOS, 4), np.float32),
            image_size=SIDE,
            augmentation=Augmentation(),
            seed=42,
        )
        normalise, pipeline = Normaliser(MEAN, STD), author_pipeline()
        decoded = [decode(path.read_bytes(), SIDE) for path in paths]
        transform = TrainingTransform(SIDE, Augmentation())
        ours, author = "ours, uint8 batches", "the author's way, float32 batches"
        seconds = measured(
            {
                author: lambda _: author_epoch(paths, pipeline),
                ours: lambda turn: our_epoch(images, None, turn),
                "ours and normalising, float32 batches": lambda turn: our_epoch(images, normalise, turn),
                "  of ours: decode": lambda _: our_decode(source),
                "  of ours: augmentation": lambda turn: our_transform(decoded, transform, turn),
            },
            rounds,
        )
    print(f"{PHOTOS} photos of {SIDE} px, batches of {BATCH}, one core, medians of {rounds} interleaved rounds")
    for name, value in seconds.items():
        print(f"{name:40s} {PHOTOS / value:7.1f} images/s   {seconds[author] / value:5.2f} x the author's way")


if __name__ == "__main__":
    main()
