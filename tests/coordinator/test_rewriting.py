"""The report while the run goes on: rewritten after news, never in the way of the run."""

from __future__ import annotations

import threading

import pytest
from fake_fleet import small_graph

from coordinator.events import GiveUp, Progressed, Tick
from coordinator.ledger import Ledger
from coordinator.rewriting import Rewriting
from shared_store.errors import StoreDownError
from workers.tasks import Progress

LEDGER = Ledger(small_graph())
NEWS = GiveUp("a", "why")
SOON = 60.0  # seconds that a loaded machine may take


class Writer:
    """A report that is written: how often, what is raised, and one that waits to be let go."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.written = threading.Semaphore(0)
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        error = self.errors.pop(0) if self.errors else None
        self.written.release()
        if error is not None:
            raise error


def test_it_is_written_after_news_and_not_for_the_time_alone() -> None:
    writer = Writer()
    with Rewriting(writer, pytest.fail, least_seconds=0.0) as rewriting:
        rewriting(NEWS, LEDGER)
        assert writer.written.acquire(timeout=SOON)
        rewriting(Tick(1.0), LEDGER)
        rewriting(Progressed(Progress("a", 1)), LEDGER)
        rewriting(Progressed(Progress("a", 1, epoch=1)), LEDGER)
        assert writer.written.acquire(timeout=SOON)
    assert writer.count == 2


def test_much_news_is_one_report() -> None:
    writer = Writer()
    with Rewriting(writer, pytest.fail, least_seconds=1000.0) as rewriting:
        for _ in range(50):
            rewriting(NEWS, LEDGER)
        assert writer.written.acquire(timeout=SOON)
        rewriting(NEWS, LEDGER)
    assert writer.count == 1


def test_a_store_that_is_down_is_told_once_and_tried_again() -> None:
    down = StoreDownError("the store does not answer", where="sftp://nas", mend="see to it")
    writer, told = Writer(down, down, None), list[str]()
    with Rewriting(writer, told.append, least_seconds=0.0) as rewriting:
        for _ in range(3):
            rewriting(NEWS, LEDGER)
            assert writer.written.acquire(timeout=SOON)
    assert writer.count == 3
    assert len(told) == 1 and "the store does not answer" in told[0]


def test_a_bug_in_the_report_waits_until_the_run_is_over() -> None:
    writer = Writer(ZeroDivisionError("a chart"))
    over = False
    with (
        pytest.raises(ZeroDivisionError, match="a chart"),
        Rewriting(writer, pytest.fail, least_seconds=0.0) as rewriting,
    ):
        rewriting(NEWS, LEDGER)
        assert writer.written.acquire(timeout=SOON)
        rewriting(NEWS, LEDGER)
        over = True
    assert over


def test_what_ended_the_run_goes_before_a_bug_in_the_report() -> None:
    writer, told = Writer(ZeroDivisionError("a chart")), list[str]()
    with pytest.raises(KeyboardInterrupt), Rewriting(writer, told.append, least_seconds=0.0) as rewriting:
        rewriting(NEWS, LEDGER)
        assert writer.written.acquire(timeout=SOON)
        raise KeyboardInterrupt
    assert told == ["the report could not be rewritten: ZeroDivisionError('a chart')"]
