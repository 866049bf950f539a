"""How many images at once fit a card, and the words for when none do: what they propose does fit."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.footprint import DRIVER_MB, NEVER, SURE, Footprint, TrainingMemory
from workers.memory import footprint, spared_footprint
from workers.recipe import Recipe

FULL = TrainingMemory(
    held_mb=400, whole_mb=12_050, gradients_mb=100, image_mb=1000, waiting_mb=5, batch_size=12
)  # fmt: skip
HALF = dataclasses.replace(FULL, whole_mb=6050, image_mb=500)
AUTO = Footprint(FULL, HALF, "auto", None)

SIZES = st.floats(0, 1e5)
MEMORIES = st.builds(
    TrainingMemory, SIZES, SIZES, SIZES, st.floats(5, 1e5), st.floats(0, 4), st.sampled_from([1, 2, 3, 12, 32])
)


def card_gb(memory: TrainingMemory, images: int, factor: float = 1.0) -> float:
    return memory.card_mb(images, factor) / 1e3


@given(MEMORIES)
def test_of_the_parts_of_a_batch_a_larger_one_takes_more(memory: TrainingMemory) -> None:
    parts = [memory.tensors_mb(images) for images in range(1, memory.batch_size)]
    assert parts == sorted(parts) and len(set(parts)) == len(parts)


@given(MEMORIES, st.lists(st.floats(0, 500), min_size=2, max_size=6))
def test_a_larger_card_never_takes_fewer_images(memory: TrainingMemory, cards: list[float]) -> None:
    found = [Footprint(memory, memory, "auto", None).images(gigabytes, 32) or 0 for gigabytes in sorted(cards)]
    assert found == sorted(found) and all(memory.batch_size % images == 0 for images in found if images)


def test_the_peak_of_a_real_network_grows_with_the_micro_batch() -> None:
    recipe = Recipe(model="efficientnet_b0", weights="none", image_size=224, batch_size=12)
    for known in (footprint(recipe), spared_footprint(recipe)):
        assert known is not None
        for memory in (known.full, known.half):
            peaks = [memory.tensors_mb(images) for images in (1, 2, 3, 4, 6, 12)]
            assert peaks == sorted(peaks)


def test_the_most_images_that_divide_the_batch_and_may_fit_are_taken() -> None:
    assert AUTO.images(100.0, 32) == 12
    for images in (12, 6, 4, 3, 2, 1):
        assert AUTO.images(card_gb(FULL, images, NEVER), 32) == images
    assert AUTO.images(card_gb(FULL, 5), 32) == 4  # 5 divides no 12
    assert AUTO.images(card_gb(FULL, 1, NEVER) - 0.001, 32) is None


def test_a_batch_is_not_cut_where_that_would_take_more() -> None:
    heavy = dataclasses.replace(FULL, whole_mb=1000, gradients_mb=990, image_mb=30)
    known = Footprint(heavy, heavy, "float32", None)
    assert card_gb(heavy, 1) > card_gb(heavy, 12)
    assert known.images(card_gb(heavy, 12), 32) == 12
    assert "micro_batch" not in known.text()
    assert "with 12 images at once" in known.refusal("recipe", 1.0, 32, "this card").what


def test_a_card_of_which_nobody_knows_what_auto_is_there_counts_as_one_of_16_bits() -> None:
    just = card_gb(HALF, 12)
    assert (AUTO.images(just, None), AUTO.images(just, 16), AUTO.images(just, 32)) == (12, 12, 6)
    assert AUTO.fits_text(just, None) == "fits with micro_batch 6 in 32 bits, fits in 16 bits"
    assert (AUTO.fits_text(just, 16), AUTO.fits_text(100.0, None)) == ("fits", "fits")
    assert AUTO.fits_text(0.1, None) == "does not fit"
    for precision, memory in (("float32", FULL), ("float16", HALF), ("bfloat16", HALF)):
        assert dataclasses.replace(AUTO, precision=precision).on(32) is memory


def test_people_are_told_for_every_precision_that_may_be() -> None:
    assert AUTO.text() == "13.0 GB in 32 bits, 7.0 GB in 16 bits (with micro_batch 1: 2.1 GB, 1.6 GB)"
    assert dataclasses.replace(AUTO, precision="float16", micro_batch=12).text() == "7.0 GB in 16 bits"


def test_a_micro_batch_that_the_person_set_is_kept() -> None:
    fixed = dataclasses.replace(AUTO, micro_batch=4)
    assert fixed.images(100.0, 32) == 4 and fixed.images(card_gb(FULL, 3), 32) is None
    said = fixed.refusal("recipe", card_gb(FULL, 3, SURE), 32, "this card")
    assert said.what.startswith("recipe needs 5.1 GB of a card with 4 images at once in 32 bits; this card has")
    assert "recipe.micro_batch 3, or null" in said.mend and said.where == "recipe"


def test_the_refusal_names_each_way_that_surely_fits_the_one_that_changes_least_first() -> None:
    less = dataclasses.replace(FULL, whole_mb=2500, image_mb=200)
    spared = Footprint(less, less, "auto", None)
    ways = AUTO.ways("recipes.b4", card_gb(FULL, 1, SURE) - 0.01, 32, spared)
    assert ways == [
        "recipes.b4.checkpointing true (4 images at once; slower, the same result)",
        "recipes.b4.precision float16 (1 image at once)",
        f"a card of {card_gb(FULL, 1, SURE):.1f} GB",
    ]


def test_where_nothing_alone_fits_two_ways_together_may() -> None:
    tiny = dataclasses.replace(HALF, whole_mb=200, image_mb=10)
    spared = Footprint(FULL, tiny, "auto", None)
    ways = AUTO.ways("recipe", card_gb(tiny, 12, SURE), 32, spared)
    assert ways[0] == "recipe.checkpointing true and recipe.precision float16 (12 images at once)"
    assert AUTO.ways("recipe", (DRIVER_MB + 1) / 1e3, 32)[0].startswith("a smaller recipe.image_size")


@pytest.mark.parametrize(("memory_gb", "ways"), [(0.8, 1), (0.9, 2)])
def test_what_is_proposed_for_a_real_network_fits_when_it_is_reckoned_itself(memory_gb: float, ways: int) -> None:
    recipe = Recipe(model="efficientnet_b0", weights="none", precision="float32", image_size=384, batch_size=4)
    found = footprint(recipe)
    assert found is not None and found.images(memory_gb, 32) is None
    *proposed, _card = found.ways("recipe", memory_gb, 32, spared_footprint(recipe))
    assert len(proposed) == ways
    for way in proposed:
        change = {
            "checkpointing": "checkpointing true" in way,
            "precision": "float16" if "precision float16" in way else "float32",
        }
        made = recipe.model_copy(update=change)
        known = footprint(made)
        assert made != recipe and known is not None and known.images(memory_gb, 32) is not None, way
