"""What happens to a decoded image before it is a model's input. The one module that imports albumentations.

Training: longest side to the image size, padded to a square (wrapped around or black), shift / scale / rotate in one
warp, flips, one of four colour changes, one of three blurs or noise. With every probability of `Augmentation` at zero
that is exactly what `framing.py` does for evaluation.

Each call is seeded by its caller. albumentations' own `set_random_seed` gives every transform of a pipeline its own
generator with the SAME seed, so that (say) the flip and the warp would be decided by one number; `set_random_state`
with one shared generator keeps the decisions independent.
"""

from __future__ import annotations

import os
import random
import threading
from statistics import NormalDist
from typing import Any

# It asks the package index for a newer version at import otherwise.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from workers.framing import Pixels, resized, squared
from workers.recipe import Augmentation

BRIGHTNESS = CONTRAST = 0.1
GAMMA_PERCENT = (50, 150)
HUE = SATURATION = VALUE = 10
BLUR_PIXELS = 3
# albumentations' default when the recipe was published: a variance of 10 to 50 grey levels squared.
NOISE_LEVELS = (10**0.5, 50**0.5)
_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])


class TrainingTransform:
    """uint8 [h, w, 3] and a seed -> uint8 [side, side, 3]. Safe to share between threads."""

    def __init__(self, image_size: int, augmentation: Augmentation) -> None:
        self.image_size = image_size
        self.augmentation = augmentation
        self._local = threading.local()

    def __call__(self, image: Pixels, seed: int) -> Pixels:
        if not hasattr(self._local, "pipeline"):
            self._local.pipeline = _pipeline(self.augmentation)
        decisions = random.Random(seed)
        wrap = decisions.random() < self.augmentation.pad_wrap
        square = squared(resized(image, self.image_size), self.image_size, wrap)
        self._local.pipeline.set_random_state(np.random.default_rng(seed), decisions)
        result: Pixels = self._local.pipeline(image=square)["image"]
        return result


class _ShiftScaleRotate(albumentations.ImageOnlyTransform):
    """Shift by a share of each side, scale and rotation about the middle in one warp; outside, the photo is mirrored.

    albumentations' own Affine works out boxes and keypoints that no classifier has, and warps three channels. OpenCV's
    four-channel kernel gives the same pixels in 0.6 of the time of its three-channel one.
    """

    def __init__(self, shift: float, scale: float, degrees: float, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.shift, self.scale, self.degrees = shift, scale, degrees

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        draw = self.py_random.uniform
        angle, scale = draw(-self.degrees, self.degrees), 1 + draw(-self.scale, self.scale)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
        matrix[:, 2] += draw(-self.shift, self.shift) * width, draw(-self.shift, self.shift) * height
        return {"matrix": matrix}

    def apply(self, img: Pixels, matrix: NDArray[np.float64], **_: Any) -> Pixels:
        height, width = img.shape[:2]
        four = cv2.cvtColor(img, cv2.COLOR_RGB2RGBA)
        four = cv2.warpAffine(four, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(cv2.cvtColor(four, cv2.COLOR_RGBA2RGB), dtype=np.uint8)


class _GaussianNoise(albumentations.ImageOnlyTransform):
    """Normal noise of each pixel and channel in whole grey levels, its deviation drawn between `levels`.

    One random byte a value, looked up among the 256 quantiles of the normal distribution, in place of a drawn normal
    number: a tenth of the time, and noise of 3 to 7 levels is rounded to whole levels in any case.
    """

    def __init__(self, levels: tuple[float, float], p: float = 0.5) -> None:
        super().__init__(p=p)
        self.levels = levels

    def get_params(self) -> dict[str, float]:
        return {"deviation": self.py_random.uniform(*self.levels)}

    def apply(self, img: Pixels, deviation: float, **_: Any) -> Pixels:
        words = self.random_generator.integers(0, 2**64, -(-img.size // 8), dtype=np.uint64)
        drawn = words.astype("<u8", copy=False).view(np.uint8)[: img.size].reshape(img.shape)
        noise = cv2.LUT(drawn, np.rint(deviation * _QUANTILES).astype(np.int8))
        return np.asarray(cv2.add(img, noise, dtype=cv2.CV_8U), dtype=np.uint8)


def _pipeline(augmentation: Augmentation) -> Any:
    """Geometry, colour and blur of a square image; every transform works on uint8."""
    one_of = albumentations.OneOf
    return albumentations.Compose(
        [
            _ShiftScaleRotate(
                augmentation.shift, augmentation.scale, augmentation.rotate_degrees, p=augmentation.geometry
            ),
            albumentations.HorizontalFlip(p=augmentation.flip),
            albumentations.VerticalFlip(p=augmentation.vertical_flip),
            one_of(
                [
                    albumentations.RandomBrightnessContrast(BRIGHTNESS, 0, p=1),
                    albumentations.RandomBrightnessContrast(0, CONTRAST, p=1),
                    albumentations.RandomGamma(GAMMA_PERCENT, p=1),
                    albumentations.HueSaturationValue(HUE, SATURATION, VALUE, p=1),
                ],
                p=augmentation.colour,
            ),
            one_of(
                [
                    albumentations.MotionBlur((BLUR_PIXELS, BLUR_PIXELS), p=1),
                    albumentations.MedianBlur((BLUR_PIXELS, BLUR_PIXELS), p=1),
                    albumentations.GaussianBlur((BLUR_PIXELS, BLUR_PIXELS), p=1),
                    _GaussianNoise(NOISE_LEVELS, p=1),
                ],
                p=augmentation.blur,
            ),
        ]
    )
