"""Slots: free, taken, kept; and machines that take nothing."""

from __future__ import annotations

import pytest

from coordinator.events import MachineJoined
from coordinator.slots import Slots

BOX = MachineJoined("box", 2, ("train",))


def slots_with_box() -> Slots:
    slots = Slots()
    slots.join(BOX)
    return slots


def test_a_slot_is_free_unless_taken_kept_or_shut() -> None:
    slots = slots_with_box()
    slots.take(("box", 0), "a")
    slots.keep(("box", 1), "b")
    assert not slots.free
    assert slots.startable(("box", 1), "b") and not slots.startable(("box", 1), "c")
    slots.vacate(("box", 0))
    slots.release("b")
    assert slots.free == {("box", 0), ("box", 1)}
    slots.shut("box", "three failures", 5.0)
    assert not slots.free and not slots.open("box")
    slots.validate()


def test_a_slot_can_be_kept_while_another_still_runs_in_it() -> None:
    slots = slots_with_box()
    slots.take(("box", 0), "a")
    slots.keep(("box", 0), "b")
    assert not slots.startable(("box", 0), "b")
    slots.vacate(("box", 0))
    assert slots.startable(("box", 0), "b") and ("box", 0) not in slots.free
    slots.validate()


def test_a_task_that_moves_has_one_slot_kept() -> None:
    slots = slots_with_box()
    slots.keep(("box", 0), "a")
    slots.keep(("box", 1), "a")
    assert slots.targets == {"a": ("box", 1)} and slots.free == {("box", 0)}


def test_a_machine_that_leaves_names_what_ran_there_and_keeps_nothing() -> None:
    slots = slots_with_box()
    slots.take(("box", 0), "a")
    slots.keep(("box", 1), "b")
    assert slots.leave("box") == ["a"]
    assert not slots.kept and not slots.free and not slots.targets


@pytest.mark.parametrize("place", [("box", 2), ("attic", 0)])
def test_what_is_nowhere_cannot_be_taken(place: tuple[str, int]) -> None:
    with pytest.raises(AssertionError):
        slots_with_box().take(place, "a")


def test_indices_that_do_not_hold_are_found() -> None:
    slots = slots_with_box()
    slots.free.discard(("box", 0))
    with pytest.raises(AssertionError):
        slots.validate()
