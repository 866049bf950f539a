"""The journal: every event survives its line, and a torn last line costs nothing but itself."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import run_again

from coordinator.events import (
    Drain,
    Event,
    Finish,
    GiveUp,
    Kill,
    MachineCut,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    MachineProbed,
    Migrate,
    Probe,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    Stop,
    StopRequested,
    TaskEnded,
    Tick,
    from_json,
    to_json,
)
from coordinator.journal import Journal, read_journal
from shared_store.errors import StoreError
from shared_store.records import canonical_json
from workers.tasks import Failure, Outcome, Progress

texts = st.text(max_size=20)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
progresses = st.builds(Progress, texts, st.integers(1), loss=numbers, mean_ap=numbers, note=texts)
outcomes = st.builds(Outcome, texts, st.integers(1), st.none() | st.sampled_from(Failure), texts, texts, texts, texts)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(RunBegan, st.lists(texts).map(tuple)),
    st.builds(MachineJoined, texts, st.integers(1, 9), st.lists(texts).map(tuple), st.booleans()),
    st.builds(MachineLeft, texts, texts),
    st.builds(Progressed, progresses),
    st.builds(TaskEnded, outcomes),
    st.builds(ResultFound, texts),
    st.builds(StopRequested),
    st.builds(Tick, st.floats(0, 1e9)),
    st.builds(Start, texts, texts, st.integers(0), st.integers(1)),
    st.builds(Stop, texts, st.integers(1)),
    st.builds(GiveUp, texts, texts),
    st.builds(Finish, texts),
    st.builds(MachineCut, texts, texts),
    st.builds(MachineDraining, texts, st.floats(0, 1e9)),
    st.builds(MachineProbed, texts, st.booleans(), texts, numbers),
    st.builds(Migrate, texts, st.integers(1), texts, st.integers(0)),
    st.builds(Kill, texts, st.integers(1), texts),
    st.builds(Drain, texts, texts),
    st.builds(Probe, texts),
)


@given(events)
def test_an_event_survives_its_json(event: Event) -> None:
    assert from_json(to_json(event)) == event
    assert canonical_json(to_json(event))


def test_a_number_that_json_does_not_have_becomes_null() -> None:
    told = from_json(to_json(Progressed(Progress("fold", 1, loss=math.nan, seconds_left=math.inf))))
    assert told == Progressed(Progress("fold", 1))


def test_what_is_written_is_read_again_over_several_runs(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "events.jsonl"
    for at in (1.0, 2.5):
        with Journal(path) as journal:
            journal.write(at, Tick(at))
            journal.write(at, ResultFound("fold"))
            journal.write(at, Finish("all done"))
    assert read_journal(path) == [
        (1.0, Tick(1.0)),
        (1.0, ResultFound("fold")),
        (1.0, Finish("all done")),
        (2.5, Tick(2.5)),
        (2.5, ResultFound("fold")),
        (2.5, Finish("all done")),
    ]


@pytest.mark.parametrize("kept", range(1, 40, 6))
def test_a_line_torn_by_a_power_cut_is_passed_over_and_then_replaced(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        journal.write(1.0, ResultFound("a"))
        whole = path.stat().st_size
        journal.write(2.0, ResultFound("b"))
    path.write_bytes(path.read_bytes()[: whole + kept])
    assert read_journal(path) == [(1.0, ResultFound("a"))]
    with Journal(path) as journal:
        journal.write(3.0, ResultFound("c"))
    assert read_journal(path) == [(1.0, ResultFound("a")), (3.0, ResultFound("c"))]


def test_a_whole_line_that_is_not_understood_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"at":1.0,"event":"Finish","why":""}\n{"at":1.0,"event":"Dance"}\n')
    with pytest.raises(ValueError, match="line 2 of the journal"):
        read_journal(path)


def test_a_journal_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="journal cannot be written"):
        Journal(tmp_path / "file" / "events.jsonl")


class AlmostFull(io.RawIOBase):
    """A file on a disk that takes one more byte."""

    def write(self, data: Any) -> int:
        return min(len(data), 1)


def test_a_line_of_which_the_disk_took_a_part_is_no_line(tmp_path: Path) -> None:
    with Journal(tmp_path / "events.jsonl") as journal:
        journal._file.close()
        journal._file = AlmostFull()  # type: ignore[assignment]
        with pytest.raises(StoreError, match="cannot be written"):
            journal.write(0.0, Tick(0.0))


def test_a_task_that_ran_again_after_it_was_done_is_found() -> None:
    well = [Start("a", "box", 0, 1), TaskEnded(Outcome("a", 1, Failure.LOST)), Start("a", "box", 0, 2)]
    done = TaskEnded(Outcome("a", 2))
    assert run_again([*well, done]) == []
    assert run_again([*well, done, Start("a", "box", 0, 1)]) == ["a"]
    assert run_again([ResultFound("a"), Start("a", "box", 0, 1)]) == ["a"]
