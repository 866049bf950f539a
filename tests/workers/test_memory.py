"""What a fold takes of a card, without a card: held against measurements, and against what must be so."""

from __future__ import annotations

import gc
from functools import cache

import pytest
import torch

from shared_store.errors import UserError
from workers.memory import DRIVER_MB, TrainingMemory, memory_text, training_memory
from workers.recipe import Recipe

# docs/gpu.md: MB of tensors at the worst moment on a card, EfficientNet-B4 at 600 px, by images at once
MEASURED = {
    torch.float32: {1: 2014, 2: 3669, 3: 5330, 4: 6953},
    torch.bfloat16: {1: 1236, 2: 2055, 3: 2871, 4: 3704},
}


def small(**keys: object) -> Recipe:
    return Recipe.model_validate({"model": "test_efficientnet", "weights": "none", "image_size": 64, **keys})


@cache
def reference(dtype: torch.dtype) -> TrainingMemory:
    return training_memory(Recipe(model="tf_efficientnet_b4", weights="none", image_size=600, batch_size=3), dtype)


@pytest.mark.parametrize("dtype", MEASURED, ids=str)
def test_it_is_within_two_percent_of_what_a_card_measured(dtype: torch.dtype) -> None:
    memory = reference(dtype)
    for images, measured in MEASURED[dtype].items():
        assert memory.held_mb + images * memory.image_mb == pytest.approx(measured, rel=0.02)


def test_the_reference_recipe_fits_six_gigabytes_and_not_with_one_image_more() -> None:
    memory = reference(torch.float32)
    assert memory.card_mb(3) <= 6 * 2**30 / 1e6 < memory.card_mb(4)


def test_smaller_parts_of_a_batch_take_less_and_hold_the_gradients() -> None:
    memory = training_memory(small(batch_size=8), torch.float32)
    assert memory.tensors_mb(4) < memory.tensors_mb(8)
    assert memory.tensors_mb(4) == memory.held_mb + memory.gradients_mb + 4 * memory.image_mb
    assert memory.card_mb(8) == memory.held_mb + 8 * memory.image_mb + DRIVER_MB


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


def test_people_are_told_for_every_precision_that_may_be() -> None:
    assert memory_text(small(precision="float32", batch_size=1)).count("GB") == 1
    both = memory_text(small(batch_size=8))
    assert "in 32 bits" in both and "in 16 bits" in both and "with micro_batch 1" in both


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UserError, match="no_such_model"):
        training_memory(small(model="no_such_model"), torch.float32)
