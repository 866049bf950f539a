"""What is done in a process of its own ends with it, and with whoever began it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import apart_acts
import pytest
import torch
from processes import eventually

from workers.apart import Apart, DiedError
from workers.deaths import classified, memory_kills
from workers.nursery import BEGINS, FORKS, HEARD, SAYS, STOP, TRAINS, Hands
from workers.tasks import Failure, Progress

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc, and processes that fork")


def unheard(_kind: str, _value: Any) -> None:
    """What a process says on the way is not asked for."""


@pytest.fixture(scope="module", params=[pytest.param(True, id="forks", marks=linux), pytest.param(False, id="fresh")])
def apart(request: pytest.FixtureRequest) -> Iterator[Apart]:
    apart = Apart(forks=request.param, loads=())
    yield apart
    apart.close()


def test_every_call_has_a_process_of_its_own(apart: Apart) -> None:
    answers = [apart.call(partial(apart_acts.answer, words), unheard) for words in ("one", "two")]
    assert [words for words, _ in answers] == ["one", "two"]
    assert len({os.getpid(), *(process for _, process in answers)}) == 3


def test_what_is_said_on_the_way_comes_in_order_and_before_the_answer(apart: Apart) -> None:
    heard: list[tuple[str, Any]] = []
    assert apart.call(apart_acts.say, lambda kind, value: heard.append((kind, value))) == "said"
    assert heard == [(BEGINS, None), *((SAYS, Progress("fold", 1, step=step)) for step in range(3))]


def test_a_stop_reaches_the_call_at_work_and_no_later_one(apart: Apart) -> None:
    def stop_it(kind: str, _value: Any) -> None:
        if kind == BEGINS:
            apart.tell(STOP)

    assert apart.call(apart_acts.wait_for_a_stop, stop_it) is True
    apart.tell(STOP)
    assert apart.call(apart_acts.say, unheard) == "said"


def test_who_asks_for_reports_is_heard_of(apart: Apart) -> None:
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.5):
            apart.tell(HEARD)

    thread = threading.Thread(target=ask)
    thread.start()
    assert apart.call(apart_acts.wait_until_heard, unheard) is True
    over.set()
    thread.join()


def test_an_error_is_told_and_the_next_call_goes_well(apart: Apart) -> None:
    with pytest.raises(RuntimeError, match="ValueError: not like this"):
        apart.call(apart_acts.fail, unheard)
    assert apart.call(apart_acts.say, unheard) == "said"


@pytest.mark.parametrize(
    ("act", "exit_code", "said"),
    [
        (partial(apart_acts.leave, 7), 7, "something is wrong"),
        pytest.param(apart_acts.read_nowhere, -signal.SIGSEGV, "Segmentation fault", marks=linux),
        pytest.param(apart_acts.be_killed, -9, "", marks=linux),
    ],
    ids=["leaves", "faults", "is killed"],
)
def test_a_process_that_dies_takes_nobody_along_and_its_last_words_are_told(
    apart: Apart, act: Any, exit_code: int, said: str
) -> None:
    with pytest.raises(DiedError) as caught:
        apart.call(act, unheard)
    assert caught.value.exit_code == exit_code and said in caught.value.said
    assert apart.call(apart_acts.say, unheard) == "said"


@linux
@pytest.mark.parametrize(("forks", "act"), [(True, "wait_for_ever"), (True, "hang"), (False, "wait_for_ever")])
def test_a_process_ends_with_whoever_began_it_even_one_that_hangs(tmp_path: Path, forks: bool, act: str) -> None:
    told = tmp_path / "process"
    tests = Path(apart_acts.__file__).parent
    code = f"import apart_acts; apart_acts.wait_for({act!r}, {str(told)!r}, {forks})"
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [tests, tests.parent]))}
    with subprocess.Popen([sys.executable, "-c", code], env=here) as actor:
        assert eventually(lambda: (told.exists() and told.read_text() != "") or actor.poll() is not None)
        process = Path(f"/proc/{told.read_text()}")
        assert process.exists()
        actor.kill()
    assert eventually(lambda: not process.exists())


@linux
@pytest.mark.parametrize(("loads", "may"), [(TRAINS, True), (("asks_for_cards",), False)])
def test_what_a_nursery_loads_leaves_the_cards_to_its_forks(loads: tuple[str, ...], may: bool) -> None:
    if torch.version.cuda is None:
        pytest.skip("this torch knows no CUDA")
    with contextlib.closing(Apart(FORKS, loads)) as apart:
        assert apart.call(apart_acts.may_use_cards, unheard) is may


@linux
def test_no_file_is_left_of_a_process_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    apart = Apart(FORKS, ())
    during: list[list[Path]] = []
    with pytest.raises(DiedError):
        apart.call(apart_acts.be_killed, lambda _kind, _value: during.append(list(tmp_path.iterdir())))
    apart.close()
    assert during == [[]]


@pytest.mark.parametrize(
    ("exit_code", "for_memory", "failure", "words"),
    [
        (-9, True, Failure.OUT_OF_MEMORY, "ran out of memory"),
        (-9, False, Failure.LOST, "SIGKILL"),
        (-15, False, Failure.LOST, "SIGTERM"),
        (-11, True, Failure.CRASHED, "SIGSEGV"),
        (-6, False, Failure.CRASHED, "SIGABRT"),
        (3, False, Failure.CRASHED, "exit code 3"),
        (0xC0000005, False, Failure.CRASHED, "0xC0000005"),
        (None, False, Failure.LOST, "gone"),
    ],
)
def test_deaths_are_told_apart(exit_code: int | None, for_memory: bool, failure: Failure, words: str) -> None:
    kind, what, _ = classified(exit_code, for_memory)
    assert kind is failure and words in what


def test_kills_for_memory_are_counted_where_the_system_tells(tmp_path: Path) -> None:
    group, kernel = tmp_path / "memory.events", tmp_path / "vmstat"
    group.write_text("low 0\nhigh 5\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n")
    kernel.write_text("nr_free_pages 5\noom_kill 3\n")
    assert memory_kills([group, kernel, tmp_path / "missing"]) == 4
    assert memory_kills([tmp_path / "missing"]) == 0


def test_a_task_that_nobody_asks_for_reports_stops_itself() -> None:
    now = 0.0
    hands = Hands(Pipe()[1], lambda: now)
    now = 500.0
    assert not hands.stop_requested()  # who says nothing of orphans wants none stopped
    hands.stops_unheard_after(60.0)
    now = 559.0
    assert not hands.stop_requested()
    hands.hear(HEARD)
    now = 618.0
    assert not hands.stop_requested()
    now = 619.0
    assert hands.stop_requested()
