"""What a fold takes of a card, without a card: held against measurements, and against what must be so."""

from __future__ import annotations

import gc
from functools import cache

import pytest
import torch

from shared_store.errors import UserError
from workers.footprint import DRIVER_MB, TrainingMemory
from workers.memory import footprint, spared_footprint, training_memory
from workers.recipe import Recipe

# docs/gpu.md: MB of tensors at the worst moment on a card, EfficientNet-B4 at 600 px, by the images of a whole batch
MEASURED = {
    torch.float32: {1: 2014, 2: 3669, 3: 5330, 4: 6953},
    torch.bfloat16: {1: 1236, 2: 2055, 3: 2871, 4: 3704},
}


def small(**keys: object) -> Recipe:
    return Recipe.model_validate({"model": "test_efficientnet", "weights": "none", "image_size": 64, **keys})


@cache
def reference(dtype: torch.dtype, images: int) -> TrainingMemory:
    recipe = Recipe(model="tf_efficientnet_b4", weights="none", image_size=600, batch_size=images)
    return training_memory(recipe, dtype)


@pytest.mark.parametrize("dtype", MEASURED, ids=str)
def test_it_is_within_two_percent_of_what_a_card_measured(dtype: torch.dtype) -> None:
    for images, measured in MEASURED[dtype].items():
        assert reference(dtype, images).tensors_mb(images) == pytest.approx(measured, rel=0.02)


def test_the_reference_recipe_fits_six_gigabytes_and_not_with_one_image_more() -> None:
    three, four = (reference(torch.float32, images).card_mb(images) for images in (3, 4))
    assert three <= 6 * 2**30 / 1e6 < four


def test_smaller_parts_of_a_batch_take_less_and_hold_the_gradients() -> None:
    memory = training_memory(small(batch_size=8), torch.float32)
    assert memory.tensors_mb(4) < memory.tensors_mb(8)
    waiting = 4 * memory.waiting_mb
    assert memory.tensors_mb(4) == memory.held_mb + memory.gradients_mb + 4 * memory.image_mb + waiting
    assert memory.card_mb(8) == memory.held_mb + memory.whole_mb + DRIVER_MB


# in 32 bits, of a batch of 4: MB of tensors at the worst moment of a second part of so many images, played with the
# gradients of the first part already there
SECOND_PARTS = {("resnet50", 224): {4: 446, 2: 275, 1: 189}, ("vit_base_patch16_224", 224): {4: 922, 2: 637, 1: 510}}


@pytest.mark.parametrize(("model", "side"), SECOND_PARTS)
def test_a_part_of_a_batch_is_reckoned_as_if_the_gradients_of_another_were_there(model: str, side: int) -> None:
    memory = training_memory(small(model=model, image_size=side, batch_size=8), torch.float32)
    for images, played in SECOND_PARTS[model, side].items():
        part_mb = memory.tensors_mb(images) - (8 - images) * memory.waiting_mb
        assert part_mb == pytest.approx(memory.held_mb + played, rel=0.05)


def test_what_is_held_is_weights_optimizer_and_average() -> None:
    weights = training_memory(small(), torch.float32).gradients_mb
    held = {name: training_memory(small(**keys), torch.float32).held_mb for name, keys in HELD.items()}
    assert held["adamw"] - held["sgd"] == pytest.approx(weights, rel=0.1)  # two moments, and momentum alone
    assert held["ranger"] - held["adamw"] == pytest.approx(weights, rel=0.1)  # Lookahead's slow weights
    assert held["averaged"] - held["adamw"] == pytest.approx(weights, rel=0.1)


HELD: dict[str, dict[str, object]] = {
    "sgd": {"optimizer": "sgd"},
    "adamw": {"optimizer": "adamw"},
    "ranger": {"optimizer": "ranger"},
    "averaged": {"optimizer": "adamw", "ema_decay": 0.99},
}


def test_sixteen_bits_take_less() -> None:
    recipe = small(batch_size=8)
    assert training_memory(recipe, torch.float16).image_mb < 0.7 * training_memory(recipe, torch.float32).image_mb


def test_nothing_of_it_stays_behind() -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    training_memory(small(), torch.float32)
    before = tensors()
    training_memory(small(), torch.float32)
    assert tensors() <= before


def test_both_precisions_are_reckoned_at_once_as_each_alone_and_with_checkpointing_too() -> None:
    recipe, spared = small(batch_size=8), small(batch_size=8, checkpointing=True)
    for found, asked in ((footprint(recipe), recipe), (spared_footprint(recipe), spared)):
        assert found is not None
        assert found.full == training_memory(asked, torch.float32)
        assert found.half == training_memory(asked, torch.float16)
    assert spared_footprint(spared) is None  # no other choice


def test_what_cannot_go_without_values_is_not_reckoned() -> None:
    assert footprint(small(image_size=16, batch_size=1)) is None  # one value per channel: it cannot train either


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UserError, match="no_such_model"):
        training_memory(small(model="no_such_model"), torch.float32)
