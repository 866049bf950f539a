"""What was reckoned without a card, held against what training takes of one, and of one imitated that is too small."""

from __future__ import annotations

import pytest
import torch

from bench.card import limited
from bench.step import CLASSES, ready
from workers.footprint import DRIVER_MB
from workers.loop import Learner, auto_bits, compute_dtype
from workers.memory import footprint, training_memory
from workers.model import initial_model
from workers.recipe import Recipe

STEPS = 7  # Lookahead has its own copy of the weights from the sixth on
B4 = Recipe(model="tf_efficientnet_b4", weights="none", image_size=600, batch_size=3, precision="float32")
CASES: dict[str, dict[str, object]] = {
    "B4, the reference": {},
    "in 16 bits": {"precision": "auto"},
    "one image at once": {"micro_batch": 1},
    "computed again": {"checkpointing": True},
    "another network": {"model": "resnet50", "image_size": 384, "batch_size": 8, "optimizer": "adamw"},
}


def peak_mb(recipe: Recipe, card: str) -> float:
    learner = Learner(recipe, initial_model(recipe, CLASSES, 0), card, (0,))
    for _ in learner.epoch(ready(recipe, STEPS), 0):
        pass
    return torch.cuda.max_memory_allocated(card) / 1e6


@pytest.mark.parametrize("case", CASES)
def test_what_was_reckoned_is_within_five_percent_of_what_training_took(case: str, card: str) -> None:
    recipe = B4.model_copy(update=CASES[case])
    memory = training_memory(recipe, compute_dtype(recipe, torch.device(card)))
    with limited(card, None):
        assert memory.tensors_mb(recipe.micro_batch or recipe.batch_size) == pytest.approx(
            peak_mb(recipe, card), rel=0.05
        )


def test_what_is_said_to_fit_six_gigabytes_trains_there_and_what_is_refused_does_not(card: str) -> None:
    memory_gb, bits = 6 * 2**30 / 1e9, auto_bits(torch.device(card))
    limit = int(1e9 * memory_gb) - DRIVER_MB * 10**6
    known, four = footprint(B4), B4.model_copy(update={"batch_size": 4, "micro_batch": 4})
    assert known is not None and known.images(memory_gb, bits) == 3
    with limited(card, limit):
        peak_mb(B4, card)
    refused = footprint(four)
    assert refused is not None and refused.images(memory_gb, bits) is None
    with limited(card, limit), pytest.raises(torch.OutOfMemoryError):
        peak_mb(four, card)
