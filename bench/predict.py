"""Inference, side by side in one run: the predictor against a plain PyTorch one. Target: at most 0.75 of its time.

    python -m bench.predict [MODEL] [SIDE] [IMAGES]

Plain: the network as `timm.create_model` gives it, float32 NCHW batches, `torch.no_grad()`. Rounds are interleaved and
the median of each is taken; shared machines make the seconds worth little, the ratio is what counts.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import timm
import torch

from workers.folding import folded
from workers.images import Normaliser
from workers.predictor import Member, Predictor

ROUNDS = 9
CLASSES = ("a", "b", "c", "d")
TARGET = 0.75


def main(model_name: str = "tf_efficientnet_lite0", side: int = 224, images: int = 32) -> None:
    random = np.random.default_rng(1)
    pixels = torch.from_numpy(random.integers(0, 256, (images, side, side, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    naive_model = timm.create_model(model_name, num_classes=len(CLASSES)).eval()
    ours_model = timm.create_model(model_name, num_classes=len(CLASSES)).to(memory_format=torch.channels_last).eval()
    ours_model.load_state_dict(naive_model.state_dict())
    ours_model = folded(ours_model)
    mean, std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.5)
    half = (0.5, 0.5, 0.5)
    predictor = Predictor(CLASSES, [Member("one", side, ours_model, Normaliser(half, half))], "cpu")
    batch = pixels.contiguous()

    def naive() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        with torch.no_grad():
            logits: torch.Tensor = naive_model((batch.float() / 255 - mean) / std)
        return logits.numpy()

    def ours() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return predictor.batch_logits({side: pixels})

    difference = float(np.abs(naive() - ours()).max())
    seconds = _interleaved([naive, ours])
    ratio = seconds[1] / seconds[0]
    print(f"{model_name}, {images} images of {side} px, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    print(f"plain {1000 * seconds[0] / images:6.2f} ms/image   1.00")
    print(f"ours  {1000 * seconds[1] / images:6.2f} ms/image   {ratio:.2f}   target <= {TARGET}")
    print(f"largest difference of a logit: {difference:.1e}")


def _interleaved(variants: list[Callable[[], object]]) -> list[float]:
    """Median seconds of each variant, their rounds taking turns."""
    times: list[list[float]] = [[] for _ in variants]
    for _ in range(ROUNDS):
        for variant, seconds in zip(variants, times, strict=True):
            began = time.perf_counter()
            variant()
            seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in times]


if __name__ == "__main__":
    given = dict(zip(("model_name", "side", "images"), sys.argv[1:], strict=False))
    numbers = {name: int(value) for name, value in given.items() if name != "model_name"}
    main(given.get("model_name", "tf_efficientnet_lite0"), **numbers)
