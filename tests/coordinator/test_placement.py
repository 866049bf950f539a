"""Placement on unequal machines: nobody beats the lower bound, and the plan comes closer to it than others do."""

from __future__ import annotations

from statistics import mean

import pytest

from bench.placement import SEVEN, THREE, Row, measure
from bench.placement_cases import Case

SEEDS = range(3)
CASES = [
    Case(f"{name}, {'deaths' if deaths else 'no deaths'}", speeds, deaths=deaths)
    for name, speeds in (("three", THREE), ("seven", SEVEN))
    for deaths in (False, True)
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def rows(request: pytest.FixtureRequest) -> list[Row]:
    return [measure((request.param, seed)) for seed in SEEDS]


def test_nobody_ends_before_the_lower_bound(rows: list[Row]) -> None:
    assert all(ratio >= 1.0 for row in rows for ratio in row.ratios.values())


def test_the_plan_ends_before_every_other_way_to_place_folds(rows: list[Row]) -> None:
    means = {name: mean(row.ratios[name] for row in rows) for name in rows[0].ratios}
    ours = means.pop("foldfleet")
    assert ours < min(means.values()), (ours, means)


def test_the_same_seed_is_placed_alike(rows: list[Row]) -> None:
    assert measure((rows[0].case, SEEDS[0])) == rows[0]
