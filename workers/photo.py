"""One photo, read once: what is kept of it, its id, and its fingerprint against duplicates.

The predictor keeps of a photo what preparation does (`keep`), so that both see the same pixels.
Light on imports, because every process of the pool loads it.
"""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared_store.errors import UserError
from workers.decode import UnreadableImageError, decode

JPEG_QUALITY = 95
THUMBNAIL_SIDE = 32
FINE = 512
"""A scaled decode stays at least this large, so that its rounding of odd sizes moves nothing by 1/500 of a side."""


@dataclass(frozen=True)
class Photo:
    """A photo whose kept bytes lie in `file`. `hash_bits` and `thumbnail` are its fingerprint."""

    image_id: str  # sha256 of the kept bytes
    file: str
    width: int
    height: int
    hash_bits: int  # 64-bit perceptual hash
    thumbnail: bytes  # uint8 RGB, THUMBNAIL_SIDE x THUMBNAIL_SIDE x 3


def read_photo(source: str, target: str, longest_side: int) -> Photo | str:
    """Read the photo at `source` and write what is kept of it to `target`; the reason where that cannot be.

    Raises UserError when `target` cannot be written.
    """
    try:
        data = Path(source).read_bytes()
        kept, small = keep(data, longest_side)
    except UnreadableImageError as error:
        return error.reason
    except OSError as error:
        return f"the file cannot be read ({error.strerror or error})"
    write_scratch(target, kept)
    height, width = small.shape[:2]
    thumbnail = cv2.resize(small, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    thumbnail = np.asarray(thumbnail, np.uint8)
    return Photo(
        hashlib.sha256(kept).hexdigest(), target, width, height, perceptual_hash(thumbnail), thumbnail.tobytes()
    )


def keep(data: bytes, longest_side: int) -> tuple[bytes, NDArray[np.uint8]]:
    """The bytes that are kept of a photo file, and its pixels before they became those. Raises what `decode` raises."""
    pixels = decode(data, at_least=max(longest_side + 1, FINE))  # + 1: what must be shrunk is never taken for small
    small = shrink(pixels, longest_side)
    return kept_bytes(data, pixels, small), small


def shrink(pixels: NDArray[np.uint8], longest_side: int) -> NDArray[np.uint8]:
    """Scale so that the longest side is `longest_side`, by the area filter, only ever down."""
    height, width = pixels.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def kept_bytes(data: bytes, pixels: NDArray[np.uint8], small: NDArray[np.uint8]) -> bytes:
    """A photo that was not shrunk stays byte for byte, unless its file is larger than its pixels; else JPEG 95."""
    if small is pixels and len(data) <= pixels.nbytes:
        return data
    return encode_jpeg(small)


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """RGB pixels as a JPEG of quality 95."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    written, buffer = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert written, f"OpenCV could not encode pixels of shape {pixels.shape}"
    return bytes(buffer.tobytes())


def perceptual_hash(thumbnail: NDArray[np.uint8]) -> int:
    """The 64-bit DCT hash (pHash): signs of the 8 x 8 lowest frequencies of the grey picture against their median."""
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = np.asarray(cv2.dct(grey))[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def write_scratch(target: str, data: bytes) -> None:
    """Write a passing file; a full disk is said in words."""
    try:
        Path(target).write_bytes(data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        mend = "free some space there, or set TMPDIR to a folder on another disk"
        raise UserError("the disk for passing files is full", where=str(Path(target).parent), mend=mend) from error
