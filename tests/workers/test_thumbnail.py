"""Thumbnails: small, of the photo's own shape, the same bytes again."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from workers.thumbnail import thumbnail


def _photo(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "shown"), [((640, 320), (160, 80)), ((40, 30), (40, 30)), ((30, 900), (5, 160)), ((1, 1), (1, 1))]
)
def test_the_longest_side_is_shrunk_and_nothing_is_enlarged(size: tuple[int, int], shown: tuple[int, int]) -> None:
    data = thumbnail(_photo(*size), 160)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        assert image.size == shown
    assert data == thumbnail(_photo(*size), 160)
