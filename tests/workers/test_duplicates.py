"""Copies are found, alike photos are not; what follows does not depend on the order of the photos."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import cv2
import elpv_dataset
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from workers.alike import near_pairs
from workers.decode import decode
from workers.duplicates import Candidate, Verdict, judge
from workers.photo import THUMBNAIL_SIDE, encode_jpeg, perceptual_hash, shrink

Pixels = NDArray[np.uint8]
CELLS = sorted((Path(elpv_dataset.__file__).parent / "data" / "images").glob("*.png"))


def scene(seed: int, height: int = 450, width: int = 600) -> Pixels:
    """A smooth random picture: as different from others as photos are."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def thumbnail(pixels: Pixels) -> Pixels:
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def pairs(*pictures: Pixels, bits: int = 2) -> list[list[int]]:
    thumbnails = [thumbnail(picture) for picture in pictures]
    hashes = np.array([perceptual_hash(t) for t in thumbnails], np.uint64)
    cells = np.stack(thumbnails).reshape(len(pictures), -1, 3)
    return near_pairs(hashes, cells, bits).tolist()


def photo(picture: Pixels, path: str, **fields: str) -> Candidate:
    small = thumbnail(picture)
    values = {"image_id": f"id of {path}", "label": "cat", "group": "", "part": "train"} | fields
    return Candidate(path=path, hash_bits=perceptual_hash(small), thumbnail=small.tobytes(), **values)


def kept(candidates: list[Candidate], verdict: Verdict) -> list[str]:
    return sorted(c.path for c, used in zip(candidates, verdict.kept, strict=True) if used)


def groups(candidates: list[Candidate], verdict: Verdict) -> dict[str, str]:
    return dict(zip((c.path for c in candidates), verdict.groups, strict=True))


def smaller(picture: Pixels) -> Pixels:
    return shrink(picture, max(picture.shape) // 2)


def reencoded(picture: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=60)
    return decode(buffer.getvalue())


@pytest.mark.parametrize("copy", [smaller, reencoded, lambda picture: decode(encode_jpeg(smaller(picture)))])
def test_resized_and_reencoded_copies_are_near(copy: object) -> None:
    assert callable(copy)
    pictures = [scene(seed) for seed in range(12)]
    assert pairs(*pictures, *[copy(picture) for picture in pictures]) == [[i, i + 12] for i in range(12)]


def test_different_photos_are_not_near_even_with_a_generous_hash() -> None:
    assert pairs(*[scene(seed, 96, 128) for seed in range(60)], bits=16) == []


def test_flat_photos_whose_hashes_collide_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    walls = [
        (128 + rng.normal(0, 2, (240, 320, 1)) + rng.normal(0, 0.3)).repeat(3, 2).astype(np.uint8) for _ in range(30)
    ]
    spots = []
    for place in range(0, 200, 40):
        spot = np.full((240, 320, 3), 128, np.uint8)
        spot[place : place + 6, 100:106] = 200
        spots.append(spot)
    assert pairs(*walls, *spots, bits=16) == []


def test_a_small_defect_on_the_same_background_is_no_duplicate() -> None:
    clean = scene(1)
    marked = clean.copy()
    marked[100:115, 100:115] = 255 - marked[100:115, 100:115]
    assert pairs(clean, marked, bits=16) == []


def test_another_colour_of_the_same_thing_is_no_duplicate() -> None:
    red = scene(2)
    assert pairs(red, np.ascontiguousarray(red[:, :, ::-1]), bits=16) == []


def test_solar_cells_that_look_alike_are_all_different_and_their_copies_are_found() -> None:
    cells = [decode(path.read_bytes()) for path in CELLS[1250:1400]]  # the most alike of the set
    assert pairs(*cells, bits=8) == []
    copies = [reencoded(cell) for cell in cells[:20]]
    found = pairs(*cells, *copies, bits=4)
    assert found == [[i, i + 150] for i in range(20)]


def test_same_label_is_kept_once_the_first_by_path() -> None:
    picture = scene(1)
    photos = [photo(picture, "b"), photo(picture, "a"), photo(reencoded(picture), "c"), photo(scene(2), "d")]
    verdict = judge(photos, 2)
    assert kept(photos, verdict) == ["a", "d"]
    assert [(f.path, f.other_path, f.kind, f.action) for f in verdict.duplicates] == [
        ("b", "a", "near", "kept once"),
        ("c", "a", "near", "kept once"),
    ]
    assert len({groups(photos, verdict)[path] for path in "abc"}) == 1
    assert groups(photos, verdict)["d"] == "id of d"


def test_conflicting_labels_are_named_and_dropped() -> None:
    picture = scene(1)
    photos = [photo(picture, "a"), photo(picture, "b", label="dog"), photo(scene(2), "c")]
    verdict = judge(photos, 2)
    assert kept(photos, verdict) == ["c"]
    assert [(f.path, f.label, f.other_label, f.action) for f in verdict.duplicates] == [
        ("a", "cat", "dog", "dropped: the same picture has two labels"),
        ("b", "dog", "cat", "dropped: the same picture has two labels"),
    ]


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        (("train", "test"), "test"),
        (("train", "selection"), "selection"),
        (("selection", "test"), "test"),
        (("train", "selection", "test"), "test"),
    ],
)
def test_a_picture_in_two_parts_stays_in_the_one_that_is_measured(kinds: tuple[str, ...], left: str) -> None:
    photos = [photo(scene(1), part, part=part, label="") for part in kinds]
    verdict = judge(photos, 2)
    assert kept(photos, verdict) == [left]
    assert {(f.part, f.other_part, f.action) for f in verdict.leaks} == {
        (part, left, f"not used in {part}: it would leak into {left}") for part in kinds if part != left
    }


def test_an_explicit_group_in_two_parts_is_a_leak_as_well() -> None:
    photos = [
        photo(scene(1), "a", group="anna"),
        photo(scene(2), "b", group="anna", part="test"),
        photo(scene(3), "c", group="berta"),
    ]
    verdict = judge(photos, 2)
    assert kept(photos, verdict) == ["b", "c"]
    assert [(f.kind, f.path) for f in verdict.leaks] == [("group", "a")]


def test_duplicates_merge_explicit_groups() -> None:
    photos = [
        photo(scene(1), "a", group="berta"),
        photo(scene(2), "b", group="berta"),
        photo(scene(2), "c", group="anna"),
        photo(scene(3), "d", group="anna"),
    ]
    assert set(groups(photos, judge(photos, 2)).values()) == {"anna"}


def test_every_test_photo_is_predicted_but_the_same_bytes_are_one_row() -> None:
    picture = scene(1)
    photos = [
        photo(picture, "a", part="test", image_id="same"),
        photo(picture, "b", part="test", image_id="same"),
        photo(reencoded(picture), "c", part="test"),
    ]
    verdict = judge(photos, 2)
    assert kept(photos, verdict) == ["a", "c"]
    assert [f.path for f in verdict.duplicates] == ["b"]


def test_a_picture_that_lies_there_thousands_of_times_is_no_burden() -> None:
    one = photo(scene(1), "", image_id="any")
    photos = [dataclasses.replace(one, path=f"{number:05d}") for number in range(5000)]
    verdict = judge(photos, 2)
    assert kept(photos, verdict) == ["00000"]
    assert len(verdict.duplicates) == 4999


SCENES = [scene(seed, 48, 64) for seed in range(5)]
KINDS = st.tuples(
    st.integers(0, 4),
    st.sampled_from(["cat", "dog"]),
    st.sampled_from(["train", "selection", "test"]),
    st.sampled_from(["", "", "", "anna", "berta"]),
)


def population(kinds: list[tuple[int, str, str, str]]) -> list[Candidate]:
    return [
        photo(SCENES[scene_number], f"{place}", label=label, part=part, group=group)
        for place, (scene_number, label, part, group) in enumerate(kinds)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_the_photos_does_not_matter(kinds: list[tuple[int, str, str, str]], random: object) -> None:
    photos = population(kinds)
    shuffled = list(photos)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = judge(photos, 2), judge(shuffled, 2)
    assert kept(photos, one) == kept(shuffled, other)
    assert groups(photos, one) == groups(shuffled, other)
    assert (one.duplicates, one.leaks) == (other.duplicates, other.leaks)


@settings(max_examples=60, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=12))
def test_what_is_kept_is_clean_and_what_is_not_is_accounted_for(kinds: list[tuple[int, str, str, str]]) -> None:
    photos = population(kinds)
    verdict = judge(photos, 2)
    used = [(p, g) for p, g, k in zip(photos, verdict.groups, verdict.kept, strict=True) if k]
    for part in ("train", "selection"):
        thumbnails = [p.thumbnail for p, _ in used if p.part == part]
        assert len(thumbnails) == len(set(thumbnails)), f"a picture twice in {part}"
    parts_of: dict[str, set[str]] = {}
    for p, group in used:
        parts_of.setdefault(group, set()).add(p.part)
    assert all(len(parts) == 1 for parts in parts_of.values()), "a group in two parts"
    findings = [f.path for f in (*verdict.duplicates, *verdict.leaks)]
    assert sorted(findings) == sorted(p.path for p, k in zip(photos, verdict.kept, strict=True) if not k)
    assert all(p.path in kept(photos, verdict) for p in photos if p.part == "test")


def test_a_photo_that_repeats_nothing_keeps_its_own_group() -> None:
    photos = [dataclasses.replace(photo(scene(n), str(n)), image_id=f"id {n}") for n in range(3)]
    assert judge(photos, 2).groups == ("id 0", "id 1", "id 2")
