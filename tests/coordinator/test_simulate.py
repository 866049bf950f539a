"""Runs under every fault at once, a short form of `make simulate`: nothing is violated, mutants are found out."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from bench.fault_play import play

SEEDS = range(int(os.environ.get("FOLDFLEET_SIMULATED_RUNS", "300")))
PARTS = 4
FAULTS = (
    "death",
    "cut",
    "preemption",
    "orphans",
    "orphans of a coordinator that is gone",
    "coordinator: crash",
    "coordinator: stop",
    "coordinator: cut",
    "lost answers",
    "late news",
    "news kept until a machine was back",
    "commits that lost their race",
    "commits that waited for the store",
    "jumps to a rival's commit",
    "results that stood already",
    "hung attempts",
    "crashed",
    "nan",
    "out of memory",
    "store",
    "commits while hot",
    "probes failed",
    "graphs refused",
    "machines that lie",
    "jumps of the clock",
    "order: Migrate",
    "order: Kill",
    "order: Drain",
)
happened: Counter[str] = Counter()


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_nothing_is_lost_doubled_or_misplaced_and_the_run_ends(part: int) -> None:
    for seed in SEEDS[part::PARTS]:
        report = play(seed)
        assert report.violation is None, f"seed {seed}: {report.violation}"
        happened.update(report.happened)


def test_every_fault_happened() -> None:
    missing = [fault for fault in FAULTS if not happened[fault]]
    assert not missing or not happened, f"never in {len(SEEDS)} runs: {missing}"


def test_a_seed_is_the_same_run_to_the_event() -> None:
    assert play(12).trace == play(12).trace != play(13).trace


@pytest.mark.parametrize(
    ("without", "seeds", "invariants"),
    [
        ("fencing", range(0, 13), ("no start in a busy slot", "no start of a task that runs or is done")),
        ("put-if-absent", range(0, 1), ("no commit is ever replaced",)),
        ("put-if-absent", range(15, 16), ("no two results of one task",)),
        ("leak-rule", range(14, 15), ("labels are honest",)),
    ],
)
def test_without_the_rule_that_forbids_it_it_happens(without: str, seeds: range, invariants: tuple[str, ...]) -> None:
    violations = [v for v in (play(seed, without).violation for seed in seeds) if v is not None]
    assert violations and {v.invariant for v in violations} <= set(invariants), violations
