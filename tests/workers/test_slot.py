"""A slot keeps what its task reports until somebody asks, and nothing that the next report says again."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import children
from tiny_fold import tiny_task

from shared_store.commits import last_commit, put_commit
from shared_store.records import Commit
from shared_store.store import Store
from workers.apart import Apart, DiedError, Hear
from workers.card_watch import CardWatch
from workers.cards import Card
from workers.nursery import BEATS, HEARD, SAYS, Act
from workers.pulse import Pulse
from workers.run import Place
from workers.slot import Slot
from workers.tasks import Failure, Outcome, Progress, task_id, to_json
from workers.tier import open_tier


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    """Where the tasks of all slots in here are done: what it takes to begin is paid once."""
    apart = Apart()
    yield apart
    apart.close()


class Scripted:
    """In the place of `Apart`: a call says what `script` tells it to, and ends as it returns or raises."""

    def __init__(self, script: Callable[[Hear], Any]) -> None:
        self._script, self.told = script, list[str]()

    def call(self, _act: Act, hear: Hear) -> Any:
        return self._script(hear)

    def tell(self, word: str) -> None:
        self.told.append(word)


def slot_at(store: Store, tmp_path: Path, apart: Apart | Scripted | None = None) -> Slot:
    return Slot(Place(store.url, str(tmp_path / "cache"), 1.0, "cpu", 1), apart)


def test_reports_are_handed_out_once(store: Store, tmp_path: Path) -> None:
    slot = slot_at(store, tmp_path)
    slot.keep(Progress("fold", 1, step=1))
    assert slot.reports() == (Progress("fold", 1, step=1),)
    assert slot.reports() == ()


def test_a_report_that_only_moves_numbers_on_replaces_the_one_before(store: Store, tmp_path: Path) -> None:
    slot = slot_at(store, tmp_path)
    told = [
        Progress("fold", 1, epoch=0, step=1, note="begins"),
        Progress("fold", 1, epoch=0, step=2),
        Progress("fold", 1, epoch=0, step=3),
        Progress("fold", 1, epoch=0, step=4, commit=1),
        Progress("fold", 1, epoch=0, step=5),
        Progress("fold", 1, epoch=1, step=6),
        Progress("other", 1, epoch=1, step=1),
    ]
    for report in told:
        slot.keep(report)
    assert [report.step for report in slot.reports()] == [1, 3 + 1, 5, 6, 1]


class KnownCard(CardWatch):
    """A card of which something is known at once."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def newest(self) -> Card:
        return Card(1, "GPU-0", "GTX 1060", "6.1", "560", 6.4, 2.5, 71.0)


@pytest.mark.parametrize(("device", "known"), [("cuda:0", (1, 2.5, 71.0)), ("cpu", (None, None, None))])
def test_reports_say_how_full_and_warm_the_slot_s_card_is(
    store: Store, tmp_path: Path, device: str, known: tuple[float | None, ...]
) -> None:
    def label(hear: Hear) -> Outcome:
        hear(SAYS, Progress("fold", 1))
        return Outcome("fold", 1)

    place = Place(store.url, str(tmp_path / "cache"), 1.0, device, 1)
    (report,) = Slot(place, Scripted(label), KnownCard()).run("fold", {}, 1).reports
    assert (report.card, report.gpu_memory_gb, report.temperature_celsius) == known
    assert report.says_nothing  # of how far the task is


def test_a_stop_reaches_the_attempt_that_it_names_even_before_it_begins(
    store: Store, tmp_path: Path, apart: Apart
) -> None:
    task = tiny_task(store, "teacher/fold0")
    slot = slot_at(store, tmp_path, apart)
    slot.stop(task_id(task), 1)
    ran = slot.run(task_id(task), to_json(task), 1)
    assert ran.outcome.failure is Failure.STOPPED
    assert any(report.commit is not None for report in ran.reports)
    assert slot.run(task_id(task), to_json(task), 2).outcome.failure is None


def test_what_is_told_of_a_machine_goes_with_the_next_report_that_has_no_words_of_its_own(
    store: Store, tmp_path: Path
) -> None:
    slot = slot_at(store, tmp_path)
    slot.tell("one")
    slot.tell("other")
    slot.keep(Progress("fold", 1, step=1, note="begins"))
    for step in (2, 3, 4):
        slot.keep(Progress("fold", 1, step=step))
    assert [(report.step, report.note) for report in slot.reports()] == [
        (1, "begins"),
        (2, "one"),
        (3, "other"),
        (4, ""),
    ]


def test_a_slot_hands_over_what_earlier_attempts_left_on_its_machine(store: Store, tmp_path: Path) -> None:
    tier = open_tier(tmp_path / "cache", store.url)
    blob = tier.put_blob(b"state")
    put_commit(tier, Commit("teacher-fold0-1", 1, None, "0" * 64, 1, "nonce", 2, 30, {"state": blob}))
    slot_at(store, tmp_path)
    deadline = time.monotonic() + 60
    while last_commit(store, "teacher-fold0-1") is None and time.monotonic() < deadline:
        time.sleep(0.05)
    handed_over = last_commit(store, "teacher-fold0-1")
    assert handed_over is not None and store.get_blob(handed_over.blobs["state"]) == b"state"


def test_a_task_that_says_nothing_gives_a_sign_of_life_while_its_thread_works(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.slot._SIGN_SECONDS", 0.0)
    heard: list[tuple[Progress, ...]] = []

    def silent(hear: Hear) -> Outcome:
        heard.append(slot.reports())
        hear(BEATS, None)
        heard.append(slot.reports())
        heard.append(slot.reports())
        hear(SAYS, Progress("fold", 2, epoch=3, step=30, commit=7))
        heard.append(slot.reports())
        hear(BEATS, None)
        heard.append(slot.reports())
        return Outcome("fold", 2)

    slot = slot_at(store, tmp_path, Scripted(silent))
    assert slot.run("fold", {}, 2).reports == ()
    begun, at_work = Progress("fold", 2), Progress("fold", 2, epoch=3, step=30)
    assert heard == [(), (begun,), (), (replace(at_work, commit=7),), (at_work,)]


def test_a_task_hears_of_who_asks_for_its_reports_now_and_then(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.slot._HEARD_SECONDS", 0.0)

    def asked(_hear: Hear) -> Outcome:
        slot.reports()
        return Outcome("fold", 1)

    scripted = Scripted(asked)
    slot = slot_at(store, tmp_path, scripted)
    slot.reports()
    assert scripted.told == []
    slot.run("fold", {}, 1)
    assert scripted.told == [HEARD]


def test_a_task_whose_process_dies_is_an_outcome(store: Store, tmp_path: Path) -> None:
    def faults(_hear: Hear) -> Outcome:
        raise DiedError(-11, "Segmentation fault in forward", killed_for_memory=False)

    ran = slot_at(store, tmp_path, Scripted(faults)).run("fold", {}, 3)
    assert (ran.outcome.task, ran.outcome.attempt, ran.outcome.failure) == ("fold", 3, Failure.CRASHED)
    assert "SIGSEGV" in ran.outcome.what and ran.outcome.traceback == "Segmentation fault in forward"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc, and a process that forks")
def test_a_fold_that_is_killed_goes_on_in_the_same_slot(store: Store, tmp_path: Path, apart: Apart) -> None:
    task = tiny_task(store, "teacher/fold0", epochs=6)
    slot = slot_at(store, tmp_path, apart)
    ended: list[Outcome] = []
    thread = threading.Thread(target=lambda: ended.append(slot.run(task_id(task), to_json(task), 1).outcome))
    thread.start()
    while not any(report.commit is not None for report in slot.reports()):
        time.sleep(0.01)
    (fold,) = children(*children(os.getpid()))
    os.kill(fold, signal.SIGKILL)
    thread.join()
    assert ended[0].failure is Failure.LOST and "SIGKILL" in ended[0].what
    ran = slot.run(task_id(task), to_json(task), 2)
    assert ran.outcome.failure is None and any("resumes from commit" in report.note for report in ran.reports)


def test_a_fold_is_done_in_a_fresh_process_where_none_can_fork(store: Store, tmp_path: Path) -> None:
    apart = Apart(forks=False)
    task = tiny_task(store, "teacher/fold0")
    ran = slot_at(store, tmp_path, apart).run(task_id(task), to_json(task), 1)
    apart.close()
    assert ran.outcome.failure is None and any(report.commit is not None for report in ran.reports)


def test_a_thread_that_waits_has_no_pulse() -> None:
    happened = threading.Event()
    thread = threading.Thread(target=happened.wait)
    thread.start()
    assert thread.ident is not None
    pulse = Pulse(thread.ident)
    time.sleep(0.1)
    assert not pulse.beats()
    happened.set()
    thread.join()
