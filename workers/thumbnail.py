"""A kept photo as a small JPEG, for pages that show many."""

from __future__ import annotations

import io

from PIL import Image

from workers.decode import decode
from workers.framing import resized

_QUALITY = 80


def thumbnail(data: bytes, longest_side: int) -> bytes:
    """The photo `data` as a JPEG of at most `longest_side` pixels; never larger than it is. Same bytes, same JPEG."""
    pixels = decode(data, longest_side)
    if max(pixels.shape[:2]) > longest_side:
        pixels = resized(pixels, longest_side)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
