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


def test_what_is_written_out_reads_back_the_same() -> None:
    experiment = parse("data: {composites: {é: 3}}", "a.yaml")
    assert parse(to_yaml(experiment).decode(), "a.yaml") == experiment


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("recipe: {epoch: 3}", "unknown key recipe.epoch(.|\n)*a.yaml: recipe.epoch(.|\n)*did you mean recipe.epochs"),
        ("recipes: {epochs: 3}", "did you mean recipe"),
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
