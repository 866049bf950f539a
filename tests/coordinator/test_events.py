"""Events travel through the journal and come back as they were."""

from __future__ import annotations

import json

import pytest

from coordinator.events import (
    Event,
    Kill,
    MachineJoined,
    Migrate,
    Progressed,
    RunBegan,
    Start,
    TaskEnded,
    from_json,
    to_json,
)
from workers.tasks import Failure, Outcome, Progress


@pytest.mark.parametrize(
    "event",
    [
        RunBegan(("a", "b")),
        MachineJoined("box", 2, ("train",), True, 11.5, "linux", ("garage",), 1.5, 100.0),
        Progressed(Progress("a", 1, epoch=2, mean_ap=0.5, best_epoch=1)),
        Progressed(Progress("a", 1, gpu_memory_gb=4.2, temperature_celsius=61.0, card=0)),
        TaskEnded(Outcome("a", 1, Failure.HUNG, "silent")),
        TaskEnded(Outcome("a", 2)),
        Start("a", "box", 0, 1, micro_batch=6),
        Migrate("a", 1, "box", 1),
        Kill("a", 1, "silent"),
    ],
)
def test_an_event_comes_back_as_it_went(event: Event) -> None:
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


def test_a_number_that_is_not_finite_is_left_out_and_an_unknown_event_is_refused() -> None:
    back = from_json(to_json(Progressed(Progress("a", 1, loss=float("nan")))))
    assert isinstance(back, Progressed) and back.progress.loss is None
    with pytest.raises(KeyError):
        from_json({"event": "Telepathy"})


def test_a_report_from_before_cards_were_told_of_still_reads() -> None:
    old = {"task": "a", "attempt": 1, "epoch": 2, "epochs": 3, "step": 8, "steps": 12, "loss": 0.7, "mean_ap": 0.5}
    assert from_json({"event": "Progressed", "progress": old}) == Progressed(Progress("a", 1, 2, 3, 8, 12, 0.7, 0.5))
