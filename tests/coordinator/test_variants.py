"""How tasks are named after their recipe and repeat, and found again from their ids."""

from __future__ import annotations

import pytest

from coordinator.variants import Variant, member_names, recipe_lines, recipe_of, variants_of
from workers.recipe import Recipe
from workers.tasks import TrainTask, task_id


@pytest.mark.parametrize("recipe_name", ["", "b4", "conv_next2"])
@pytest.mark.parametrize("repeat", [0, 12])
@pytest.mark.parametrize("fold", ["fold0", "fold1-14"])
def test_a_name_comes_back_from_its_id(recipe_name: str, repeat: int, fold: str) -> None:
    name = Variant(recipe_name, repeat, Recipe()).task_name("teacher", fold)
    task = TrainTask(name, "snapshot", "folds", ("cat", "dog"), (0,), Recipe().model_dump(mode="json"))
    assert member_names([task_id(task)]) == (name,)
    assert recipe_of(name) == recipe_name


def test_members_that_would_share_a_name_keep_their_ids() -> None:
    ids = ["teacher-fold0-0123456789abcdef", "teacher-fold0-fedcba9876543210"]
    assert member_names(ids) == tuple(ids)


def test_the_last_seed_is_followed_by_the_first() -> None:
    repeats = variants_of(Recipe(seed=2**31 - 1), {}, 2)
    assert [(variant.name, variant.recipe.seed) for variant in repeats] == [("", 2**31 - 1), ("repeat1", 0)]
    assert all(Recipe.model_validate(variant.recipe.model_dump()) for variant in repeats)


def test_every_recipe_has_a_line_of_its_own() -> None:
    one = "tf_efficientnet_b4.ap_in1k, 600 px, batch 3, 35 epochs"
    assert recipe_lines(variants_of(Recipe(), {}, 1)) == [f"recipe: {one}"]
    lines = recipe_lines(variants_of(Recipe(), {"b4": {}, "small": {"image_size": 64}}, 2))
    assert lines == [f"recipe b4: {one}, 2 times", f"recipe small: {one}, 2 times".replace("600", "64")]
