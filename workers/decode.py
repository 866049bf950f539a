"""The one decoder: the bytes of any ordinary photo file -> upright RGB pixels.

JPEG (any EXIF rotation, progressive, CMYK), PNG (16 bit, palette, alpha), WebP, BMP, TIFF and a GIF's
first frame. Alpha is laid over white; 16-bit samples keep their high byte; colour profiles are not
applied (neither did the recipe). Everything that reads photos comes through here, so that training,
prediction and preparation see the same pixels.

Ordinary JPEGs take OpenCV, which is fastest; all else takes Pillow, which is also the judge of a JPEG
that looks cut off, because OpenCV's releases differ in whether they fill the rest with grey.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

PIXEL_LIMIT = 200_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
Image.MAX_IMAGE_PIXELS = None  # `decode` has its own limit, checked before any pixel is decoded

_ORIENTATION_TAG = 0x0112
_JPEG = ("JPEG", "MPO")  # MPO: a JPEG that carries further pictures, as some phones write
_CONVERTIBLE = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LA", "PA", "La", "RGBA", "RGBa", "RGBX")
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
# What Pillow's readers are known to raise on broken files.
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class UnreadableImageError(Exception):
    """The bytes are no photo that can be used; `reason` says why, for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(data: bytes, at_least: int | None = None) -> NDArray[np.uint8]:
    """Decode a photo file into upright RGB, shape (height, width, 3), uint8, C-contiguous.

    With `at_least`, a JPEG may come back scaled down by 2, 4 or 8 with its longest side still at
    least that many pixels: several times faster for photos that are shrunk afterwards.
    Raises UnreadableImageError for empty, broken, cut-off and too large files.
    """
    if not data:
        raise UnreadableImageError("the file is empty")
    with _pillow_explained(data):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    _refuse_bomb(image)
    factor = _reduction(max(image.size), at_least)
    if image.format in _JPEG and image.mode in ("RGB", "L") and not _looks_cut_off(data):
        pixels = _opencv_jpeg(data, factor)
        if pixels is not None:
            return _upright(pixels, _orientation(image))
    with _pillow_explained(data):
        if image.format in _JPEG:
            image.draft(None, (image.width // factor, image.height // factor))
        image.load()  # before its EXIF is asked: Pillow turns TIFFs upright while it loads them
        upright = ImageOps.exif_transpose(image)
    return _rgb(upright)


@contextlib.contextmanager
def _pillow_explained(data: bytes) -> Iterator[None]:
    """Turn what Pillow raises on bad files into UnreadableImageError; its warnings are about odd metadata only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnidentifiedImageError:
            raise UnreadableImageError(_unknown(data)) from None
        except _BROKEN as error:
            raise UnreadableImageError(f"broken or cut off ({error})") from error


def _refuse_bomb(image: Image.Image) -> None:
    pixels = image.width * image.height
    if pixels > PIXEL_LIMIT:
        limit = PIXEL_LIMIT // 1_000_000
        raise UnreadableImageError(f"too large: {image.width} x {image.height} pixels; the limit is {limit} megapixels")
    if pixels == 0:
        raise UnreadableImageError("broken or cut off (no pixels)")


def _unknown(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file: export it as JPEG or PNG"
    return "not a JPEG, PNG, WebP, BMP, TIFF or GIF file"


def _looks_cut_off(data: bytes) -> bool:
    """True when no end marker follows the last scan's start: cut off, or odd bytes after the picture."""
    return not data.endswith(b"\xff\xd9") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


def _opencv_jpeg(data: bytes, factor: int) -> NDArray[np.uint8] | None:
    """OpenCV's pixels as stored (not turned), scaled down by `factor`; None when it cannot decode the file."""
    flag = _REDUCED.get(factor, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr), np.uint8)


def _orientation(image: Image.Image) -> int:
    """A JPEG's EXIF orientation; upright where its EXIF is no EXIF, since the pixels are sound."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = image.getexif().get(_ORIENTATION_TAG, 1)
        except _BROKEN:
            return 1
    return value if isinstance(value, int) else 1


def _reduction(longest: int, at_least: int | None) -> int:
    """The largest of 8, 4, 2 that leaves `at_least` pixels on the longest side, else 1."""
    if at_least is None:
        return 1
    return next((factor for factor in (8, 4, 2) if longest >= at_least * factor), 1)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo EXIF orientation 1..8 (TIFF 6.0, tag 274); unknown values mean upright."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Any loaded Pillow image as 8-bit RGB."""
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16-bit samples at 255
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode not in _CONVERTIBLE:
        raise UnreadableImageError(f"pixels of the kind {image.mode}: save it as 8-bit RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"), np.uint8)
