"""Retries: a budget for each kind of failure, delays, and reasons that people can act on."""

from __future__ import annotations

import dataclasses

import pytest
from fake_fleet import small_graph
from hypothesis import given
from hypothesis import strategies as st

from coordinator.retry import (
    LONGEST_DELAY_SECONDS,
    Budgets,
    Ended,
    delay_seconds,
    judge,
    quarantine,
    smaller_micro_batch,
)
from workers.tasks import Failure, LabelTask, Outcome, TrainTask

TASK = next(task for task in small_graph().tasks.values() if isinstance(task, TrainTask))
LABEL = next(task for task in small_graph().tasks.values() if isinstance(task, LabelTask))
BUDGETS = Budgets(crashes=3)


def ended(*failures: Failure, committed: bool = False) -> list[Ended]:
    return [
        Ended(Outcome("t", number, failure, what="it broke", where="here"), 10.0 * number, committed)
        for number, failure in enumerate(failures, start=1)
    ]


def test_a_stopped_task_goes_on_at_once_and_any_number_of_times() -> None:
    verdict = judge(TASK, ended(*[Failure.STOPPED] * 50), BUDGETS)
    assert verdict.again and verdict.not_before == 500.0


def test_a_crash_is_tried_again_within_its_budget() -> None:
    assert judge(TASK, ended(Failure.CRASHED, Failure.CRASHED), BUDGETS).again
    verdict = judge(TASK, ended(Failure.CRASHED, Failure.CRASHED, Failure.CRASHED), BUDGETS)
    assert not verdict.again
    assert verdict.why == "teacher/fold0: crashed, 3 times: it broke\n  where: here"


def test_losses_do_not_count_against_the_crash_budget() -> None:
    history = ended(Failure.LOST, Failure.CRASHED, Failure.LOST, Failure.LOST, Failure.CRASHED)
    assert judge(TASK, history, BUDGETS).again


def test_losses_with_new_commits_are_never_too_many() -> None:
    assert judge(TASK, ended(*[Failure.LOST] * 100, committed=True), BUDGETS).again


def test_losses_in_a_row_without_a_commit_are_bounded() -> None:
    barren = ended(*[Failure.LOST] * BUDGETS.barren_losses)
    assert judge(TASK, barren[:-1], BUDGETS).again
    verdict = judge(TASK, barren, BUDGETS)
    assert not verdict.again and "without a new commit" in verdict.why and "system log" in verdict.why


def test_a_loss_is_tried_again_later_and_later() -> None:
    waits = [
        judge(TASK, history, BUDGETS).not_before - history[-1].at
        for n in (1, 2, 3)
        for history in [ended(*[Failure.LOST] * n)]
    ]
    assert waits == [1.0, 2.0, 4.0]


@given(st.integers(1, 10_000))
def test_a_delay_grows_and_ends_at_a_minute(times: int) -> None:
    assert delay_seconds(times) <= delay_seconds(times + 1) <= LONGEST_DELAY_SECONDS


def test_a_loss_that_is_not_finite_has_one_more_try() -> None:
    assert judge(TASK, ended(Failure.NAN), BUDGETS).again
    verdict = judge(TASK, ended(Failure.NAN, Failure.NAN), BUDGETS)
    assert not verdict.again and "recipe.learning_rate" in verdict.why


def crash(machine: str, what: str) -> Ended:
    return Ended(Outcome("t", 1, Failure.CRASHED, what), 0.0, machine=machine)


def test_a_task_that_crashes_in_the_same_way_on_two_machines_is_given_up_as_its_own_fault() -> None:
    here = crash("box", "RuntimeError: bad row 17 at 0x7f3a in /home/ann/data/a.parquet")
    there = crash("attic", r"RuntimeError: bad row 3 at 0x11 in C:\photos\b.parquet")
    verdict = judge(TASK, [here, there], Budgets(crashes=9))
    assert not verdict.again and "on box and attic" in verdict.why and "the fold's own fault" in verdict.why


@pytest.mark.parametrize("second", [crash("box", "KeyError: 'a'"), crash("attic", "KeyError: 'b'"), crash("attic", "")])
def test_other_crashes_and_those_of_one_machine_say_less(second: Ended) -> None:
    assert judge(TASK, [crash("box", "KeyError: 'a'"), second], Budgets(crashes=9)).again


def test_a_preemption_never_counts_and_is_made_good_at_once() -> None:
    verdict = judge(TASK, ended(*[Failure.PREEMPTED] * 100), BUDGETS)
    assert verdict.again and verdict.not_before == 1000.0
    losses = [Failure.LOST] * (BUDGETS.barren_losses - 1)
    assert not judge(TASK, ended(*losses, Failure.PREEMPTED, Failure.LOST), BUDGETS).again  # nor does it hide losses


def test_a_hung_task_is_tried_again_later_and_later_within_a_budget_of_its_own() -> None:
    once, twice = ended(Failure.HUNG), ended(Failure.CRASHED, Failure.CRASHED, Failure.HUNG, Failure.HUNG)
    assert [judge(TASK, history, BUDGETS).not_before - history[-1].at for history in (once, twice)] == [1.0, 2.0]
    verdict = judge(TASK, ended(*[Failure.HUNG] * BUDGETS.hangs), BUDGETS)
    assert not verdict.again and "3 times" in verdict.why and "mend:" in verdict.why


def short(micro_batch: int | None, machine: str = "box", memory_gb: float | None = 8.0) -> Ended:
    outcome = Outcome("t", 1, Failure.OUT_OF_MEMORY, "CUDA ran out of it")
    return Ended(outcome, 50.0, machine=machine, micro_batch=micro_batch, memory_gb=memory_gb)


def test_out_of_memory_goes_on_at_once_with_less_until_nothing_less_is_left_on_three_cards() -> None:
    down = [short(size) for size in (None, 6, 4, 3, 2, 1)]  # of a batch of 12
    assert all(judge(TASK, down[:n], BUDGETS) == judge(TASK, down[:1], BUDGETS) for n in range(1, 7))
    larger, largest = short(1, "attic", 12.0), short(1, "cloud", None)
    assert judge(TASK, [*down, larger], BUDGETS).again
    verdict = judge(TASK, [*down, larger, largest], BUDGETS)
    assert not verdict.again and "1 image at a time on box (8 GB), attic (12 GB), cloud" in verdict.why
    assert "recipe.image_size" in verdict.why


def test_what_has_no_smaller_micro_batch_is_given_up_after_three_cards_with_what_would_help() -> None:
    cards = [short(None, "box"), short(None, "attic", 12.0), short(None, "cloud", 16.0)]
    chosen = dataclasses.replace(TASK, recipe={**TASK.recipe, "micro_batch": 6})
    named = dataclasses.replace(chosen, name="teacher/b4/fold0")
    mends = ("set recipe.micro_batch to 4, or to null", "set recipes.b4.micro_batch to 4", "fleet.slots")
    for task, mend in zip((chosen, named, LABEL), mends, strict=True):
        assert [judge(task, cards[:n], BUDGETS).again for n in (1, 2, 3)] == [True, True, False]
        assert mend in judge(task, cards, BUDGETS).why


def test_a_machine_is_shut_out_after_three_failures_in_a_row_unless_one_task_alone_made_them() -> None:
    one, other = (Outcome(task, 1, Failure.CRASHED, "no driver") for task in ("t", "u"))
    assert quarantine([one, other]) is None
    assert quarantine([one, one, one]) is None
    assert quarantine([one, one, other]) == "3 failures in a row, the last: crashed, no driver"


@pytest.mark.parametrize("failure", [Failure.BAD_INPUT, Failure.STORE])
def test_what_only_the_person_can_mend_is_given_up_at_once(failure: Failure) -> None:
    outcome = Outcome("t", 1, failure, what="the disk is full", where="/data", mend="free some space")
    verdict = judge(TASK, [Ended(outcome, 0.0)], BUDGETS)
    assert not verdict.again
    assert [part in verdict.why for part in ("the disk is full", "/data", "free some space")] == [True] * 3


def away(times: int, committed: bool = False) -> list[Ended]:
    outcome = Outcome("t", 1, Failure.STORE, what="the store does not answer", mend="look after it", transient=True)
    return [Ended(outcome, 100.0 * number, committed) for number in range(1, times + 1)]


def test_a_store_that_is_away_is_waited_for_longer_and_longer_but_not_for_ever() -> None:
    assert [judge(TASK, away(n), BUDGETS).not_before - 100.0 * n for n in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert judge(TASK, away(BUDGETS.outages - 1), BUDGETS).again
    verdict = judge(TASK, away(BUDGETS.outages), BUDGETS)
    assert not verdict.again and "the store does not answer" in verdict.why and "look after it" in verdict.why


def test_an_outage_is_over_with_a_new_commit_or_another_end() -> None:
    assert judge(TASK, away(100, committed=True), BUDGETS).again
    assert judge(TASK, [*away(BUDGETS.outages - 1), *ended(Failure.LOST), *away(1)], BUDGETS).again


@given(st.integers(1, 512), st.none() | st.integers(1, 512))
def test_a_smaller_micro_batch_divides_the_batch(batch: int, micro: int | None) -> None:
    smaller = smaller_micro_batch(batch, micro)
    if smaller is not None:
        assert batch % smaller == 0 and smaller < (micro or batch)
    else:
        assert (micro or batch) == 1
