"""Every ordinary photo file becomes the same upright RGB pixels; everything else is refused with its reason."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from workers.decode import UnreadableImageError, decode

Pixels = NDArray[np.uint8]


def blocks(height: int = 6, width: int = 9, side: int = 16) -> Pixels:
    """Coloured blocks: unlike in every direction, and hardly changed by JPEG."""
    colours = np.random.default_rng(7).integers(0, 256, (height, width, 3))
    return np.kron(colours, np.ones((side, side, 1))).astype(np.uint8)


def written(pixels: Pixels | Image.Image, kind: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def far(one: Pixels, other: Pixels) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


STORED = {  # how the sensor's rows and columns lie in the file, by EXIF orientation
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_rotation_comes_out_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](blocks()))
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    pixels = decode(written(stored, kind, exif=exif, **options))
    assert far(pixels, blocks()) < 5
    assert pixels.flags.c_contiguous
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("orientation", STORED)
def test_a_scaled_decode_is_upright_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](blocks(side=64)))
    pixels = decode(written(stored, "JPEG", quality=95, exif=exif), at_least=144)
    assert far(pixels, blocks(side=16)) < 5


@pytest.mark.parametrize(
    ("at_least", "side"), [(None, 64), (576, 64), (289, 64), (288, 32), (144, 16), (72, 8), (9, 8)]
)
def test_a_scaled_decode_keeps_at_least_the_pixels_asked_for(at_least: int | None, side: int) -> None:
    data = written(blocks(side=64), "JPEG", quality=95)
    assert decode(data, at_least).shape == (6 * side, 9 * side, 3)


def test_a_scaled_decode_shrunk_further_looks_like_the_full_one_shrunk() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    photo = np.asarray(cv2.resize(noise, (2400, 1800), interpolation=cv2.INTER_CUBIC), np.uint8)
    data = written(photo, "JPEG", quality=92)
    full, scaled = (cv2.resize(decode(data, n), (500, 375), interpolation=cv2.INTER_AREA) for n in (None, 500))
    assert far(np.asarray(full, np.uint8), np.asarray(scaled, np.uint8)) < 1.5


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_any_jpeg_encoding(options: dict[str, object]) -> None:
    assert far(decode(written(blocks(), "JPEG", quality=95, **options)), blocks()) < 5


@pytest.mark.parametrize("at_least", [None, 72])
def test_a_cmyk_jpeg(at_least: int | None) -> None:
    data = written(Image.fromarray(blocks()).convert("CMYK"), "JPEG", quality=95)
    pixels = decode(data, at_least)
    assert far(pixels, blocks() if at_least is None else blocks(side=8)) < 5


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_files_keep_their_pixels(kind: str) -> None:
    assert np.array_equal(decode(written(blocks(), kind)), blocks())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_grey_pictures_have_three_equal_channels(kind: str) -> None:
    grey = blocks()[:, :, 0]
    pixels = decode(written(Image.fromarray(grey), kind, **({"quality": 95} if kind == "JPEG" else {})))
    assert far(pixels, np.repeat(grey[:, :, None], 3, axis=2)) < 5


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_samples_keep_their_high_byte(kind: str) -> None:
    grey = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    pixels = decode(written(Image.fromarray(grey), kind))
    assert np.array_equal(pixels[:, :, 0], grey >> 8)


def test_sixteen_bit_colour() -> None:
    colour = blocks().astype(np.uint16) << 8
    done, buffer = cv2.imencode(".png", colour[:, :, ::-1])
    assert done
    assert np.array_equal(decode(buffer.tobytes()), blocks())


def test_a_palette() -> None:
    flags = np.kron([[0, 1], [2, 3]], np.ones((8, 8), int)).astype(np.uint8)
    image = Image.fromarray(flags, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    pixels = decode(written(image, "PNG"))
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[15, 15].tolist() == [9, 9, 9]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_over_white(kind: str) -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, 4:] = (10, 20, 30, 255)
    pixels = decode(written(Image.fromarray(rgba), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 7].tolist() == [10, 20, 30]


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.fromarray(np.full((16, 16, 3), colour, np.uint8)) for colour in (200, 50)]
    data = written(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert far(decode(data), np.full((16, 16, 3), 200, np.uint8)) < 2


def test_bytes_after_the_picture_do_no_harm() -> None:
    data = written(blocks(), "JPEG", quality=95)
    assert far(decode(data + b"MotionPhoto\xff\xda" + bytes(500)), blocks()) < 5


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.995])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("at_least", [None, 72])
def test_a_file_cut_off_anywhere_is_refused(kind: str, share: float, at_least: int | None) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    data = written(noise, kind)
    with pytest.raises(UnreadableImageError):
        decode(data[: int(len(data) * share)], at_least)


def test_a_progressive_jpeg_with_a_thumbnail_cut_off_is_refused() -> None:
    thumbnail = written(blocks(side=2), "JPEG")
    body = written(blocks(side=32), "JPEG", quality=95, progressive=True)
    segment = b"Exif\x00\x00" + thumbnail  # its end marker must not pass for the picture's
    data = body[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + body[2:]
    assert far(decode(data), blocks(side=32)) < 5
    with pytest.raises(UnreadableImageError, match="cut off"):
        decode(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + bytes(9)])
def test_an_exif_that_is_none_costs_nothing_but_the_rotation(exif: bytes) -> None:
    body = written(blocks(), "JPEG", quality=95)
    data = body[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + body[2:]
    assert far(decode(data), blocks()) < 5


def test_an_empty_file_says_so() -> None:
    with pytest.raises(UnreadableImageError, match="empty"):
        decode(b"")


@pytest.mark.parametrize("data", [b"hello, world" * 10, b"%PDF-1.4" + bytes(100), bytes(1000)])
def test_other_files_say_what_can_be_read(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match="not a JPEG, PNG"):
        decode(data)


def test_a_phone_picture_that_is_not_read_says_how_to_mend_it() -> None:
    with pytest.raises(UnreadableImageError, match="export it as JPEG"):
        decode(b"\x00\x00\x00\x18ftypheic" + bytes(100))


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be huge; its rows would unpack to nothing but zeros."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(20001, 10000), (50000, 50000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_before_it_is_unpacked(width: int, height: int) -> None:
    with pytest.raises(UnreadableImageError, match="too large"):
        decode(bomb(width, height))


def test_the_limit_is_two_hundred_megapixels() -> None:
    with pytest.raises(UnreadableImageError, match="too large: 20001 x 10000 pixels; the limit is 200 megapixels"):
        decode(bomb(20001, 10000))
    with pytest.raises(UnreadableImageError, match="broken or cut off"):  # small enough to be looked at
        decode(bomb(2000, 1000))


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(UnreadableImageError, match="8-bit RGB"):
        decode(written(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


FILES = [written(blocks(side=4), kind) for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_either_decodes_or_is_refused_in_words(data: bytes, damage: list[tuple[int, int]]) -> None:
    broken = bytearray(data)
    for place, value in damage:
        broken[place % len(broken)] = value
    try:
        pixels = decode(bytes(broken))
    except UnreadableImageError as error:
        assert error.reason
    else:
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
