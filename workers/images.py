"""The data set: batches of uint8 images with soft targets, in an order and with augmentation that repeat.

What a client (train, loop, label, predict) uses:

    targets = one_hot(labels, classes)                       # float32 [n, classes]; mix soft labels in before
    images = ImageSet(snapshot, image_ids, targets, image_size=recipe.image_size,
                      augmentation=recipe.augmentation, seed=recipe.seed, threads=0)
    images.steps(batch_size)                                 # batches of one epoch
    for batch in images.batches(epoch, batch_size, start=step_in_epoch): ...
    for pixels, ids in evaluation_batches(snapshot, image_ids, image_size, batch_size): ...
    normalise = Normaliser(mean, std, device)
    model(normalise(batch.images.to(device)))

- `batch.images` is a uint8 tensor [n, 3, side, side] laid out channels_last (a view of [n, side, side, 3]); it stays
  uint8 until the device, where `Normaliser` makes it float32.
- Sample order is a function of (seed, epoch, the set of image ids); each image's augmentation of (seed, epoch,
  image id). Neither depends on history, on the order of `image_ids`, on threads or on the machine's core count.
- `batches(..., start=k)` begins at the k-th batch and decodes nothing before it: a resume in mid-epoch.
- `threads` 0 decodes in the caller's thread (best where a fold has one core); n > 0 decodes ahead in n threads
  (OpenCV leaves Python's lock while it works), for a fold whose model runs on a GPU.

`source` is anything with `image_bytes(image_id) -> bytes`: an open snapshot, or the predictor's folder of photos.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from workers.augment import TrainingTransform
from workers.decode import decode
from workers.framing import EvaluationTransform
from workers.recipe import Augmentation
from workers.tuning import tune_process

Pixels = NDArray[np.uint8]
BATCHES_AHEAD = 2


class ImageSource(Protocol):
    """Where kept bytes come from."""

    def image_bytes(self, image_id: str) -> bytes: ...


@dataclass(frozen=True)
class Batch:
    """One training batch: uint8 images [n, 3, side, side] (channels_last), float32 targets [n, classes], ids."""

    images: torch.Tensor
    targets: torch.Tensor
    image_ids: tuple[str, ...]


class ImageSet:
    """The training images of one fold with their soft targets (float32 [n, classes], rows as `image_ids`)."""

    def __init__(
        self,
        source: ImageSource,
        image_ids: Sequence[str],
        targets: NDArray[np.float32],
        *,
        image_size: int,
        augmentation: Augmentation,
        seed: int,
        threads: int = 0,
    ) -> None:
        if targets.shape[:1] != (len(image_ids),):
            raise ValueError(f"targets of shape {targets.shape} for {len(image_ids)} images")
        self.source = source
        self.image_ids = tuple(image_ids)
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.float32))
        self.seed = seed
        self.threads = threads
        self._transform = TrainingTransform(image_size, augmentation)

    def __len__(self) -> int:
        return len(self.image_ids)

    def steps(self, batch_size: int) -> int:
        """Batches of one epoch. All images are used, but a last batch of one alone is left out of its epoch:
        batch normalisation has nothing to normalise over in it."""
        whole, rest = divmod(len(self), batch_size)
        return whole + (rest > 1 or (rest == 1 and whole == 0))

    def batches(self, epoch: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """The batches `start`, `start` + 1, ... of `epoch` (both count from 0)."""
        places = order(self.seed, epoch, self.image_ids)
        chunks = [places[i * batch_size : (i + 1) * batch_size] for i in range(start, self.steps(batch_size))]

        def load(place: int, into: Pixels) -> None:
            image_id = self.image_ids[place]
            image = decode(self.source.image_bytes(image_id), self._transform.image_size)
            into[:] = self._transform(image, sample_seed(self.seed, epoch, image_id))

        for chunk, pixels in _loaded(chunks, self._transform.image_size, load, self.threads):
            yield Batch(_as_tensor(pixels), self.targets[chunk], tuple(self.image_ids[place] for place in chunk))


def evaluation_batches(
    source: ImageSource, image_ids: Sequence[str], image_size: int, batch_size: int, threads: int = 0
) -> Iterator[tuple[torch.Tensor, tuple[str, ...]]]:
    """All images in the given order, resized and padded, never augmented: (uint8 [n, 3, side, side], image ids)."""
    transform = EvaluationTransform(image_size)
    chunks = [list(range(i, min(i + batch_size, len(image_ids)))) for i in range(0, len(image_ids), batch_size)]

    def load(place: int, into: Pixels) -> None:
        into[:] = transform(decode(source.image_bytes(image_ids[place]), image_size))

    for chunk, pixels in _loaded(chunks, image_size, load, threads):
        yield _as_tensor(pixels), tuple(image_ids[place] for place in chunk)


class Normaliser:
    """uint8 images to float32 on their device: (x / 255 - mean) / std, per channel. Keeps channels_last."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: str | torch.device = "cpu") -> None:
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        offset = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self._scale = scale.to(torch.float32).to(device)
        self._offset = offset.to(torch.float32).to(device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = images.shape
        # Whole pixel rows at once: with a broadcast over three channels the CPU's inner loop has three steps.
        rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels).to(torch.float32)
        rows.mul_(self._scale.repeat(width)).sub_(self._offset.repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def one_hot(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.float32]:
    """float32 [n, classes] with a 1 at each label; KeyError names a label that is no class."""
    column = {name: i for i, name in enumerate(classes)}
    return np.eye(len(classes), dtype=np.float32)[[column[label] for label in labels]]


def sample_seed(seed: int, epoch: int, image_id: str) -> int:
    """The seed of one image's augmentation in one epoch: 64 bits of a hash, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"augment/{seed}/{epoch}/{image_id}".encode()).digest()[:8], "big")


def order(seed: int, epoch: int, image_ids: Sequence[str]) -> list[int]:
    """Places in `image_ids` in the order of `epoch`: sorted by a hash of (seed, epoch, image id).

    A hash and not a shuffle, so that neither the order of `image_ids` nor a library's version plays a part.
    """
    keys = [hashlib.sha256(f"order/{seed}/{epoch}/{image_id}".encode()).digest() for image_id in image_ids]
    return sorted(range(len(keys)), key=keys.__getitem__)


class _Load(Protocol):
    def __call__(self, place: int, into: Pixels) -> None: ...


def _loaded(chunks: Sequence[list[int]], side: int, load: _Load, threads: int) -> Iterator[tuple[list[int], Pixels]]:
    """Each chunk of places with its pixels [n, side, side, 3], in order; `threads` work BATCHES_AHEAD."""
    tune_process()
    if threads == 0:
        for chunk in chunks:
            pixels = np.empty((len(chunk), side, side, 3), np.uint8)
            for row, place in enumerate(chunk):
                load(place, pixels[row])
            yield chunk, pixels
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
    waiting: deque[tuple[list[int], Pixels, list[Future[None]]]] = deque()
    try:
        for chunk in chunks:
            pixels = np.empty((len(chunk), side, side, 3), np.uint8)
            waiting.append((chunk, pixels, [pool.submit(load, place, pixels[row]) for row, place in enumerate(chunk)]))
            if len(waiting) > BATCHES_AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(chunk: list[int], pixels: Pixels, futures: list[Future[None]]) -> tuple[list[int], Pixels]:
    for future in futures:
        future.result()
    return chunk, pixels


def _as_tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
