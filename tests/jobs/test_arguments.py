"""Arguments come in any order, and what is not given is not there."""

from __future__ import annotations

import pytest

from jobs.arguments import parse_arguments
from shared_store.errors import UserError


def overrides(*words: str) -> dict[str, object]:
    return dict(parse_arguments("pipeline", "", words).overrides)


def test_overrides_stand_anywhere_and_leave_data_alone() -> None:
    expected = {"data.folder": "photos", "store.url": "s", "recipe.epochs": 3, "recipe.learning_rate": 0.001}
    assert overrides("photos", "--store", "s", "--recipe.epochs", "3", "--recipe.learning_rate=1e-3") == expected
    assert overrides("--recipe.epochs", "3", "--store", "s", "--recipe.learning_rate=1e-3", "photos") == expected
    assert overrides("--store", "s", "--recipe.epochs", "3") == {"store.url": "s", "recipe.epochs": 3}
    assert overrides() == {}


def test_values_are_read_as_people_mean_them() -> None:
    given = {"1e-3": 0.001, "-2": -2, "true": True, "null": None, "[a, b]": ["a", "b"]}
    given |= {text: text for text in ("2024_01", "12:30", "no", "nan", "inf", "a b", "[broken")}
    for text, value in given.items():
        assert overrides("--data.test", text) == {"data.test": value}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photos", "more"], "unknown argument more"),
        (["--stroe", "s"], "did you mean --store"),
        (["--recipe.epochs"], "has no value"),
        (["--recipe.epochs", "--run"], "has no value"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        overrides(*words)
