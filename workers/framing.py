"""How a photo of any shape becomes a square of one size: longest side, then padding. All that evaluation does."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class EvaluationTransform:
    """uint8 [h, w, 3] -> uint8 [side, side, 3]: longest side to `image_size`, centred on black."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, image: Pixels) -> Pixels:
        return squared(resized(image, self.image_size), self.image_size, wrap=False)


def resized(image: Pixels, longest_side: int) -> Pixels:
    """The image with its longest side at `longest_side` pixels: area filter down, linear up, unchanged if it is."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest == longest_side:
        return image
    size = (max(1, round(width * longest_side / longest)), max(1, round(height * longest_side / longest)))
    filter_ = cv2.INTER_AREA if longest > longest_side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=filter_), dtype=np.uint8)


def squared(image: Pixels, side: int, wrap: bool) -> Pixels:
    """The image in the middle of a square, its surroundings wrapped around or black."""
    height, width = image.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    borders = (top, side - height - top, left, side - width - left)
    kind = cv2.BORDER_WRAP if wrap else cv2.BORDER_CONSTANT
    return np.asarray(cv2.copyMakeBorder(image, *borders, kind), dtype=np.uint8)
