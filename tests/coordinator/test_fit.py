"""What may run where, with how many images at once, and the words for when it may nowhere."""

from __future__ import annotations

import dataclasses

import pytest
from fake_fleet import WORK, small_graph

from coordinator.events import MachineJoined
from coordinator.fit import WHOLE, Fit, fit, largest_too_small, memory_refusal, rather_not, refusal
from coordinator.retry import Ended, Needs
from workers.footprint import DRIVER_MB, SURE, Footprint, TrainingMemory
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


def test_a_machine_that_lost_it_twice_before_a_commit_is_one_of_those() -> None:
    def lost(machine: str, committed: bool = False) -> Ended:
        return Ended(Outcome("fold", 1, Failure.LOST), 0.0, committed, machine)

    assert rather_not([lost("a"), lost("b"), lost("a")]) == {"a"}
    assert rather_not([lost("a"), lost("b")]) == frozenset()
    assert rather_not([lost("a"), lost("a", committed=True), lost("a")]) == frozenset()


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


MEMORY = TrainingMemory(
    held_mb=400, whole_mb=12_050, gradients_mb=100, image_mb=1000, waiting_mb=5, batch_size=12
)  # fmt: skip
RECKONED = Needs(footprint=Footprint(MEMORY, MEMORY, "float32", None))


def with_card(memory_gb: float | None) -> MachineJoined:
    return dataclasses.replace(BOX, gpu=True, memory_gb=memory_gb)


def test_what_was_reckoned_decides_how_many_images_a_card_is_given_before_anything_ran_there() -> None:
    sizes = {images: with_card(MEMORY.card_mb(images) / 1e3) for images in (12, 5, 1)}
    assert fit(TASK, RECKONED, None, [], sizes[12]) == WHOLE
    assert fit(TASK, RECKONED, None, [], sizes[5]) == Fit(4)
    assert fit(TASK, RECKONED, None, [], sizes[1]) == Fit(1)
    assert fit(TASK, RECKONED, None, [], with_card(DRIVER_MB / 1e3)) is None


def test_memory_that_no_card_has_and_no_probe_saw_is_tried() -> None:
    assert fit(TASK, RECKONED, None, [], dataclasses.replace(BOX, memory_gb=0.5)) == WHOLE
    assert fit(TASK, RECKONED, None, [], with_card(None)) == WHOLE


def test_a_card_that_ran_out_of_memory_all_the_same_is_given_less_than_was_reckoned() -> None:
    host = with_card(MEMORY.card_mb(5) / 1e3)
    assert fit(TASK, RECKONED, None, [short("box", host.memory_gb, 4)], host) == Fit(3)
    assert fit(TASK, RECKONED, None, [short("attic", 4.0, None)], host) == Fit(4)  # the smaller card says nothing


def test_a_refusal_for_what_was_reckoned_names_the_largest_card_and_proposes_what_fits() -> None:
    hosts = [with_card(1.0), dataclasses.replace(with_card(1.4), machine="attic")]
    largest = largest_too_small(TASK, RECKONED, None, hosts)
    assert largest == hosts[1]
    said = memory_refusal(TASK, RECKONED, largest)
    assert said.what == (
        "recipe needs 2.1 GB of a card with 1 image at once in 32 bits; the largest card here, of attic, has 1.4 GB"
    )
    assert said.where == "recipe" and f"a card of {MEMORY.card_mb(1, SURE) / 1e3:.1f} GB" in said.mend
    assert refusal(TASK, RECKONED, None, [], hosts) == f"{said.what}\n  mend:  {said.mend}"


def test_memory_is_no_reason_where_another_machine_may_take_it_or_none_is_here_that_may() -> None:
    hosts = [with_card(1.0), dataclasses.replace(BOX, machine="without", memory_gb=1.0)]
    assert largest_too_small(TASK, RECKONED, None, hosts) is None  # what a machine without a card can do is tried
    assert largest_too_small(TASK, RECKONED, "box", hosts) == hosts[0]
    assert largest_too_small(TASK, RECKONED, "cloud", hosts) is None  # it waits for the machine that it is pinned to
    assert largest_too_small(TASK, RECKONED, None, []) is None
    labelled = dataclasses.replace(RECKONED, label="big")
    assert largest_too_small(TASK, labelled, None, hosts) is None
