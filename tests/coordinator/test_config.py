"""The configuration is checked whole, and each mistake says what, where and how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config import Experiment, parse, scalar, to_yaml
from shared_store.errors import UserError


def test_an_empty_file_is_the_competition_recipe() -> None:
    experiment = parse("", "nothing.yaml")
    assert experiment == Experiment()
    assert (experiment.recipe.batch_size, experiment.recipe.image_size, experiment.folds.count) == (3, 600, 5)


def test_overrides_win_over_the_file_and_numbers_are_read_as_people_write_them() -> None:
    given = {"recipe.epochs": "3", "recipe.learning-rate": "1e-3", "data.composites.calling": "5"}
    overrides = [(key, scalar(value)) for key, value in given.items()]
    experiment = parse("recipe: {epochs: 9}\ndata: {composites: {normal: 2}}", "a.yaml", overrides)
    assert (experiment.recipe.epochs, experiment.recipe.learning_rate) == (3, 0.001)
    assert experiment.data.composites == {"normal": 2, "calling": 5}
    assert parse("", "a.yaml", [("recipe.patience", scalar("null"))]).recipe.patience is None


def test_named_recipes_are_the_recipe_with_some_keys_replaced() -> None:
    text = """
    recipe: {epochs: 9, augmentation: {flip: 0.1, blur: 0.2}}
    recipes: {b4: {}, conv_next: {model: convnext_tiny, augmentation: {flip: 0.9}}}
    folds: {repeats: 2}
    """
    overrides: list[tuple[str, object]] = [("recipe.batch-size", 4), ("recipes.conv-next.epochs", 5)]
    experiment = parse(text, "a.yaml", [*overrides, ("recipes.third.image_size", 32)])
    found = {variant.name: variant.recipe for variant in experiment.variants()}
    assert list(found)[:4] == ["b4", "conv_next", "third", "b4/repeat1"]
    assert (found["b4"].epochs, found["conv_next"].epochs, found["third"].image_size) == (9, 5, 32)
    augmentation = found["conv_next"].augmentation
    assert (augmentation.flip, augmentation.blur, found["conv_next"].batch_size) == (0.9, 0.2, 4)
    assert found["conv_next/repeat1"] == found["conv_next"].model_copy(update={"seed": 43})
    again = parse(to_yaml(experiment).decode(), "run/config.yaml", [("recipe.batch_size", 6)])
    assert [variant.recipe.batch_size for variant in again.variants()] == [6] * 6, "only what differs is kept by name"


def test_without_names_there_is_one_recipe() -> None:
    assert [(variant.name, variant.recipe) for variant in Experiment().variants()] == [("", Experiment().recipe)]


def test_what_is_written_out_reads_back_the_same() -> None:
    experiment = parse("data: {composites: {é: 3}}", "a.yaml")
    assert parse(to_yaml(experiment).decode(), "a.yaml") == experiment


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("recipe: {epoch: 3}", "unknown key recipe.epoch(.|\n)*a.yaml: recipe.epoch(.|\n)*did you mean recipe.epochs"),
        ("recipes: {epochs: 3}", "did you mean recipe.epochs"),
        ("recipes: {b4: {epoch: 3}}", "a.yaml: recipes.b4.epoch(.|\n)*did you mean recipes.b4.epochs"),
        ("recipes: {b4: {augmentation: {flipp: 1}}}", "did you mean recipes.b4.augmentation.flip"),
        ("recipes: {b4: {epochs: 0}}", "recipes.b4.epochs = 0: Input should be greater"),
        ("recipes: {b4: {micro_batch: 2}}", "recipes.b4 = (.|\n)*micro_batch 2 must divide batch_size 3"),
        ("recipes: {b4: null}", "write recipes.b4: {}"),
        ("recipes: {fold0: {}}", "small letters"),
        ("recipes: {B4: {}}", "small letters"),
        ("recipes: {a: {epochs: 5}, b: {epochs: 5, checkpoint_minutes: 1}}", "recipes.b(.|\n)*the same as recipes.a"),
        ("recipe: {epochs: 0}\nrecipes: {b4: {epoch: 3}}", "recipe.epochs = 0(.|\n)*unknown key recipes.b4.epoch"),
        ("recipe: {augmentation: {flipp: 1}}", "did you mean recipe.augmentation.flip"),
        ("recipe: {epochs: 0}", "recipe.epochs = 0: Input should be greater than or equal to 1"),
        ("recipe: {schedule: sine}", "'constant', 'cosine' or 'restarts'"),
        ("recipe: {batch_size: 3, micro_batch: 2}", "micro_batch 2 must divide batch_size 3"),
        ("recipe: {keep: ema}", "needs an ema_decay"),
        ("recipe: 3", "recipe"),
        ("- a list", "not a mapping"),
        ("recipe: {epochs: 3", "a.yaml, line 1"),
    ],
)
def test_a_mistake_says_what_where_and_how_to_mend_it(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse(text, "a.yaml")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserError, match=r"folds.count(.|\n)*recipe.epochs"):
        parse("folds: {count: 1}\nrecipe: {epochs: -1}", "a.yaml")


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda file: file.name
)
def test_every_configuration_we_ship_is_valid(file: Path) -> None:
    parse(file.read_text(encoding="utf-8"), str(file))
