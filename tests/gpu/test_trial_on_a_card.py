"""What a few steps are said to take on a card is what a fold's steps take there, its first step apart."""

from __future__ import annotations

import statistics
import time

import torch

from bench.step import CLASSES, ready
from workers.loop import Learner
from workers.model import initial_model
from workers.recipe import Recipe
from workers.trial import try_recipe

STEPS = 12
B4 = Recipe(model="tf_efficientnet_b4", weights="none", image_size=600, batch_size=3)


def test_the_first_step_which_loads_kernels_is_not_taken_for_the_others(card: str) -> None:
    tried = try_recipe(B4, CLASSES, card, 1)
    learner = Learner(B4, initial_model(B4, CLASSES, 0), card, (0,))
    seconds, began = list[float](), time.perf_counter()
    for _ in learner.epoch(ready(B4, STEPS), 0):
        torch.cuda.synchronize(card)
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    usual = statistics.median(seconds[STEPS // 2 :])
    assert usual / 3 < tried.step_seconds < 3 * usual  # a card's first step takes many times as long
