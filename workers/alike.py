"""Which photos are the same picture, by perceptual hash and thumbnail. Pure.

Two photos are duplicates when their perceptual hashes are near AND their thumbnails agree. The hash
alone collides on flat or alike subjects (walls, solar cells); a re-encoded or resized copy differs
from its original by about a grey level at most on a 32 x 32 thumbnail, other photos by more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

LEVELS_RMS = 1.1
"""Root mean square difference allowed between two thumbnails, in grey levels of 0..255."""
LEVELS_ANYWHERE = 5
"""Largest difference allowed in any one cell: a small defect on the same background is no duplicate."""
CONTRAST_SHARE = 0.2
"""RMS difference allowed as a share of the flatter picture's own contrast, so that flat pictures differ."""

_PAIRS_AT_ONCE = 2**17
_LOOKS_AT_ONCE = 4096
_STRIPES = 16
_COMPARISONS_AT_ONCE = 2**22


def near_pairs(hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], bits: int) -> NDArray[np.int64]:
    """All confirmed pairs (i < j), shape (pairs, 2), sorted.

    `hashes` (n,), `thumbnails` (n, cells, 3). Compares every pair of hashes, vectorised: a few
    nanoseconds each, so 100,000 photos take less than a minute of the hour that reading them takes.
    """
    contrast = np.array([thumbnail.std(axis=0).max() for thumbnail in thumbnails])
    flat = thumbnails.reshape(len(hashes), -1)
    coarse = flat.reshape(len(hashes), _STRIPES, -1).mean(axis=2, dtype=np.float32)
    found = [np.empty((0, 2), np.int64)]
    for pairs in _hash_pairs(hashes, bits):
        # By Jensen the RMS difference of means is at most that of the cells, so nothing is lost, and most pairs go.
        stripes = np.square(coarse[pairs[:, 0]] - coarse[pairs[:, 1]]).mean(axis=1)
        close = pairs[stripes <= LEVELS_RMS**2 + 1e-3]
        found += [
            _confirmed(flat, contrast, close[at : at + _LOOKS_AT_ONCE]) for at in range(0, len(close), _LOOKS_AT_ONCE)
        ]
    return np.concatenate(found)


def _hash_pairs(hashes: NDArray[np.uint64], bits: int) -> Iterator[NDArray[np.int64]]:
    """Pairs whose hashes differ in at most `bits` bits, at most _PAIRS_AT_ONCE at a time."""
    count = len(hashes)
    rows = max(1, _COMPARISONS_AT_ONCE // max(count, 1))
    for start in range(0, count, rows):
        block = hashes[start : start + rows]
        near = np.bitwise_count(block[:, None] ^ hashes[None, start:]) <= bits
        i, j = np.nonzero(np.triu(near, k=1))
        pairs = np.stack([i + start, j + start], axis=1).astype(np.int64)
        for first in range(0, len(pairs), _PAIRS_AT_ONCE):
            yield pairs[first : first + _PAIRS_AT_ONCE]


def _confirmed(flat: NDArray[np.uint8], contrast: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    difference = np.abs(flat[pairs[:, 0]].astype(np.int16) - flat[pairs[:, 1]])
    rms = np.sqrt(np.square(difference, dtype=np.int32).mean(axis=1))
    limit = np.minimum(LEVELS_RMS, CONTRAST_SHARE * contrast[pairs].min(axis=1))
    alike: NDArray[np.bool_] = (rms <= limit) & (difference.max(axis=1) <= LEVELS_ANYWHERE)
    return np.asarray(pairs[alike], np.int64)
