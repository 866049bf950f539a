"""Runs under every fault at once, a short form of `make simulate`: nothing is violated, mutants are found out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.fault_play import play

ROOT = Path(__file__).parents[2]
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
    "attempts beside an orphan",
    "attempts beside one of another coordinator",
    "lost answers",
    "late news",
    "doubled news",
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
    code = "from bench.fault_play import play; print(*[play(seed).trace for seed in (12, 13)])"
    other_hashes = {**os.environ, "PYTHONHASHSEED": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=other_hashes, cwd=ROOT, capture_output=True, check=True)
    traces = run.stdout.decode().split()
    assert traces == [play(12).trace, play(13).trace] and traces[0] != traces[1]


@pytest.mark.parametrize(
    ("without", "invariants"),
    [
        ("fencing", ("no start in a busy slot", "no start of a task that runs or is done")),
        ("put-if-absent", ("no commit is ever replaced", "no two results of one task")),
        ("leak-rule", ("labels are honest",)),
    ],
)
def test_without_the_rule_that_forbids_it_it_happens(without: str, invariants: tuple[str, ...]) -> None:
    violations = (play(seed, without).violation for seed in range(200))
    assert any(violation is not None and violation.invariant in invariants for violation in violations)
