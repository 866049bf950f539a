"""Preparing 12-megapixel JPEGs, photos a second on one core: ours beside the recipe author's way, interleaved.

    python -m bench.prepare [--rounds 5] [--photos 6]

The author's way: cv2.imread in full, INTER_AREA to 600 on the longest side, cv2.imwrite. Ours does the same by a scaled
decode, and takes the EXIF rotation, the sha256 id and the fingerprint against duplicates on the way. Photos:
scikit-learn's two sample photographs, enlarged to 4000 x 3000 with sensor noise, JPEG 90. CPU seconds of
one thread are counted, so that neighbours on the machine matter little; ratios are what count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

from workers.photo import Photo, read_photo

SIDE = 600


def write_photos(folder: Path, count: int) -> list[Path]:
    """`count` JPEGs of 4000 x 3000 pixels."""
    rng = np.random.default_rng(0)
    originals = load_sample_images().images
    paths = []
    for number in range(count):
        large = cv2.resize(originals[number % len(originals)], (4000, 3000), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + rng.normal(0, 2, large.shape).astype(np.float32), 0, 255).astype(np.uint8)
        path = folder / f"{number}.jpg"
        cv2.imwrite(str(path), noisy[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        paths.append(path)
    return paths


def author(source: Path, target: Path) -> None:
    """Full decode, area filter, write."""
    image = cv2.imread(str(source))
    assert image is not None, f"{source} was written a moment ago"
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), small)


def ours(source: Path, target: Path) -> None:
    photo = read_photo(str(source), str(target), SIDE)
    assert isinstance(photo, Photo), photo


def cpu_seconds(work: Callable[[Path, Path], None], sources: list[Path], target: Path) -> float:
    start = time.process_time()
    for source in sources:
        work(source, target)
    return (time.process_time() - start) / len(sources)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=int, default=6)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = write_photos(folder, options.photos)
        megabytes = statistics.mean(source.stat().st_size for source in sources) / 1e6
        ways = {"the author's way": author, "ours": ours}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, work in ways.items():
                seconds[name].append(cpu_seconds(work, sources, folder / "kept.jpg"))
    print(f"12-megapixel JPEGs of {megabytes:.1f} MB to {SIDE} px, CPU time of one thread, {options.rounds} rounds")
    for name, found in seconds.items():
        print(f"  {name:18s} median {1 / statistics.median(found):6.1f} photos/s, best {1 / min(found):6.1f}")
    ratio = statistics.median(seconds["the author's way"]) / statistics.median(seconds["ours"])
    print(f"  ours is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
