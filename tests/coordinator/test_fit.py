"""What may run where, with how many images at once, and the words for when it may nowhere."""

from __future__ import annotations

import dataclasses

import pytest
from fake_fleet import WORK, small_graph

from coordinator.events import MachineJoined
from coordinator.fit import WHOLE, Fit, fit, rather_not, refusal
from coordinator.retry import Ended, Needs
from workers.tasks import Failure, Outcome, TrainTask

TASK = next(task for task in small_graph().tasks.values() if isinstance(task, TrainTask))  # batches of 12
BOX = MachineJoined("box", 1, WORK, memory_gb=8.0, system="linux", labels=("garage",))


def ended(machine: str, memory_gb: float | None, micro_batch: int | None, failure: Failure) -> Ended:
    outcome = Outcome("t", 1, failure)
    return Ended(outcome, 0.0, machine=machine, micro_batch=micro_batch, memory_gb=memory_gb)


def short(machine: str, memory_gb: float | None, micro_batch: int | None = None) -> Ended:
    return ended(machine, memory_gb, micro_batch, Failure.OUT_OF_MEMORY)


@pytest.mark.parametrize(
    ("needs", "fits"),
    [
        (Needs(), True),
        (Needs(memory_gb=8.0, system="linux", label="garage"), True),
        (Needs(memory_gb=8.1), False),
        (Needs(system="windows"), False),
        (Needs(label="cellar"), False),
    ],
)
def test_a_machine_must_meet_every_need(needs: Needs, fits: bool) -> None:
    assert fit(TASK, needs, None, [], BOX) == (WHOLE if fits else None)


def test_a_pin_and_the_kinds_that_a_machine_takes_are_kept() -> None:
    assert fit(TASK, None, "box", [], BOX) == WHOLE
    assert fit(TASK, None, "attic", [], BOX) is None
    assert fit(TASK, None, None, [], MachineJoined("driver", 1, ("search",))) is None


def test_memory_that_is_not_known_counts_as_enough_until_it_ran_out() -> None:
    unknown = MachineJoined("box", 1, WORK)
    assert fit(TASK, Needs(memory_gb=80.0), None, [], unknown) == WHOLE
    assert fit(TASK, None, None, [short("box", None)], unknown) == Fit(6)
    assert fit(TASK, None, None, [short("attic", None)], unknown) == WHOLE


def test_after_out_of_memory_less_runs_on_cards_of_that_size_and_the_whole_batch_on_a_larger_one() -> None:
    history = [short("attic", 7.9), short("attic", 7.9, 6)]
    assert fit(TASK, None, None, history, BOX) == Fit(4)  # 8 GB are no more than 7.9: drivers keep some of it
    assert fit(TASK, None, None, history, dataclasses.replace(BOX, memory_gb=12.0)) == WHOLE
    assert fit(TASK, None, None, [short("attic", 7.9, 1)], BOX) is None


def test_a_micro_batch_that_the_person_set_is_never_lowered() -> None:
    chosen = dataclasses.replace(TASK, recipe={**TASK.recipe, "micro_batch": 6})
    assert fit(chosen, None, None, [short("box", 8.0)], BOX) is None


def test_a_task_would_rather_not_go_where_it_crashed_or_hung() -> None:
    ends = [ended(machine, None, None, failure) for machine, failure in zip("abcd", Failure, strict=False)]
    ends += [ended("e", None, None, Failure.HUNG), ended("f", None, None, Failure.CRASHED)]
    assert {"e", "f"} <= rather_not(ends) and not {"a", "b", "c"} & rather_not(ends)


@pytest.mark.parametrize(
    ("needs", "pin", "words"),
    [
        (None, None, ""),
        (Needs(memory_gb=12.0), None, "needs 12 GB; the largest card here has 8"),
        (Needs(system="darwin"), None, "needs darwin; here are linux, windows"),
        (Needs(label="cellar"), None, "needs a machine with the label cellar; no machine here has it"),
        (
            Needs(memory_gb=8.0, system="windows", label="garage"),
            None,
            "needs 8 GB and windows and the label garage; no machine here has all of it",
        ),
        (None, "cloud", "it may run only on cloud, which is not here"),
    ],
)
def test_a_refusal_says_what_is_missing(needs: Needs | None, pin: str | None, words: str) -> None:
    hosts = [BOX, MachineJoined("attic", 1, WORK, memory_gb=4.0, system="windows")]
    assert refusal(TASK, needs, pin, [], hosts) == words


def test_a_refusal_for_memory_names_the_cards_and_what_helps() -> None:
    words = refusal(TASK, None, None, [short("box", 8.0, 1)], [BOX])
    assert words.startswith("with 1 image at a time on box (8 GB); no machine here has more memory")
    assert "recipe.image_size" in words
    assert refusal(TASK, None, None, [], []) == "no machine here takes train tasks"
