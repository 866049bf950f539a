"""A slot keeps what its task reports until somebody asks, and nothing that the next report says again."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from tiny_fold import tiny_task

from shared_store.commits import last_commit, put_commit
from shared_store.records import Commit
from shared_store.store import Store
from workers.pulse import Pulse
from workers.run import Place
from workers.slot import Slot
from workers.tasks import Failure, Outcome, Progress, task_id, to_json
from workers.tier import open_tier


def slot_at(store: Store, tmp_path: Path) -> Slot:
    return Slot(Place(store.url, str(tmp_path / "cache"), 1.0, "cpu", 1))


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


def test_a_stop_reaches_the_attempt_that_it_names_even_before_it_begins(store: Store, tmp_path: Path) -> None:
    task = tiny_task(store, "teacher/fold0")
    slot = slot_at(store, tmp_path)
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
    slot = slot_at(store, tmp_path)
    monkeypatch.setattr("workers.slot._SIGN_SECONDS", 0.0)
    heard: list[tuple[Progress, ...]] = []

    def work_until_heard() -> None:
        deadline = time.monotonic() + 60.0
        while not (signs := slot.reports()) and time.monotonic() < deadline:
            sum(range(10_000))
        heard.append(signs)

    def silent(*_: object) -> Outcome:
        work_until_heard()
        slot.keep(Progress("fold", 2, epoch=3, step=30, commit=7))
        slot.reports()
        work_until_heard()
        return Outcome("fold", 2)

    monkeypatch.setattr("workers.slot.run", silent)
    assert slot.run("fold", {}, 2).reports == ()
    assert heard == [(Progress("fold", 2),), (Progress("fold", 2, epoch=3, step=30),)]


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
