"""Two coordinators: one drives, the other is told who and since when, or takes over. Time is simulated where it can be.

Processes are holders whose beats a simulated clock makes; the last tests have real ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_fleet import FakeFleet, small_graph
from far import FarBackend

from coordinator import generation
from coordinator.config import FleetSection
from coordinator.drive import drive
from coordinator.generation import (
    BEAT_SECONDS,
    ENDED,
    PATIENCE_SECONDS,
    AliveError,
    Chain,
    Hold,
    Watch,
    cleaning,
    driving,
    take,
    this_process,
)
from coordinator.journal import Journal
from coordinator.run_lock import RunLock
from shared_store import layout
from shared_store.backend import Content
from shared_store.errors import StoreDownError, StoreError, UserError
from shared_store.records import Holder
from shared_store.store import Store

DAY = 24 * 3600.0
TESTS = Path(__file__).parents[1]


class Time:
    """A monotonic clock that goes on only by sleeping; whatever is due happens on the way."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start
        self.slept = 0.0
        self._every: list[tuple[float, Callable[[], object]]] = []
        self._at: list[tuple[float, Callable[[], object]]] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        before = self.slept
        self.slept += seconds
        self.now += seconds
        for period, act in self._every:
            if self.slept // period > before // period:
                act()
        for at, act in self._at:
            if before < at <= self.slept:
                act()

    def every(self, seconds: float, act: Callable[[], object]) -> None:
        self._every.append((seconds, act))

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        self._at.append((seconds, act))


class Scene:
    """One store, one clock, and what people were told."""

    def __init__(self, store: Store, start: float = 0.0) -> None:
        self.store, self.time, self.told = store, Time(start), list[str]()
        self.watch = Watch(self.told.append, self.time.clock, self.time.sleep)

    def holder(self, run: str = "demo", *, since: str = "2026-03-01T10:00:00+01:00", take_over: bool = False) -> Hold:
        """A process that holds the run, without a thread: it beats when the scene says so."""
        chain = Chain(self.store, layout.coordinators(run))
        me = Holder(1, run, "box", 4711, since, os.urandom(8).hex())
        return Hold(chain, take(chain, me, self.watch, take_over=take_over), self.told.append)

    def lives(self, hold: Hold) -> None:
        self.time.every(BEAT_SECONDS, hold.beat)


@pytest.fixture
def scene(store: Store) -> Scene:
    return Scene(store)


class DownBackend(FarBackend):
    """A store that stops answering."""

    down = False

    def publish(self, key: str, content: Content) -> None:
        self._answer()
        super().publish(key, content)

    def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
        self._answer()
        return super().parts(key, start)

    def _answer(self) -> None:
        if self.down:
            raise StoreDownError("the store does not answer", where="far", mend="wait")


def test_the_next_command_starts_at_once_when_the_one_before_ended(scene: Scene) -> None:
    for expected in (1, 2, 3, 4, 5):
        hold = scene.holder()
        assert hold.mine.generation == expected
        hold.beat()
        hold.beat(ended=True)
    assert scene.time.slept == 0 and scene.told == []


def test_a_second_driver_is_refused_with_who_and_since_when_and_told_what_it_waits_for(scene: Scene) -> None:
    first = scene.holder()
    scene.lives(first)
    with pytest.raises(AliveError) as error:
        scene.holder()
    assert str(error.value) == "process 4711 on box since 2026-03-01T10:00:00+01:00"
    assert scene.time.slept <= BEAT_SECONDS + 1
    assert [line.split(":")[0] for line in scene.told] == [
        "the run demo was last driven by process 4711 on box since 2026-03-01T10"
    ]
    assert first.chain.newest() == first.mine


@pytest.mark.parametrize("beats", [0, 1, 7])
def test_a_driver_whose_beat_stands_still_is_gone(scene: Scene, beats: int) -> None:
    killed = scene.holder()
    for _ in range(beats):
        killed.beat()
    assert scene.holder().mine.generation == 2
    assert scene.time.slept == PATIENCE_SECONDS >= 3 * BEAT_SECONDS


def test_a_driver_that_ends_while_it_is_watched_is_followed_at_once(scene: Scene) -> None:
    first = scene.holder()
    scene.time.after(3.0, lambda: first.beat(ended=True))
    assert scene.holder().mine.generation == 2
    assert scene.time.slept == 3.0


def test_a_driver_that_was_slow_to_begin_is_seen(scene: Scene) -> None:
    first = scene.holder()
    scene.time.after(PATIENCE_SECONDS - 1, first.beat)
    with pytest.raises(AliveError):
        scene.holder()


def test_a_take_over_asks_nobody_and_fences_the_first_also_when_it_was_only_frozen(scene: Scene) -> None:
    first = scene.holder()
    first.beat()
    second = scene.holder(take_over=True, since="later")
    assert scene.time.slept == 0
    shown = first.chain.beat(first.mine)
    scene.time.sleep(3600)  # the first was frozen; now it goes on
    first.beat()
    assert first.successor == second.mine
    first.beat(ended=True)
    assert first.chain.beat(first.mine) == shown, "one that was taken over shows nothing any more"
    second.beat()
    assert second.successor is None


def test_a_take_over_ends_the_drive_like_a_stop(store: Store, tmp_path: Path) -> None:
    scene, graph, fleet = Scene(store), small_graph(), FakeFleet(store, {"box": 2})
    first = scene.holder()

    def fenced() -> bool:
        if fleet.now >= 15 and first.successor is None:
            scene.holder(take_over=True)
            first.beat()
        return first.successor is not None

    with Journal(tmp_path / "events.jsonl") as journal:
        settings = FleetSection()
        ledger = drive(
            graph, store, fleet, settings, clock=fleet.clock, journal=journal, watch=lambda *_: None, stop=fenced
        )
    assert ledger.stopping and not ledger.running and not ledger.all_done
    again = FakeFleet(store, {"box": 2})
    with Journal(tmp_path / "events.jsonl") as journal:
        ledger = drive(
            graph, store, again, settings, clock=again.clock, journal=journal, watch=lambda *_: None, stop=lambda: False
        )
    assert ledger.all_done
    assert {order.task for order in again.started} < set(graph.tasks), "what was finished is kept"


def test_two_runs_in_one_store_never_disturb_each_other(scene: Scene) -> None:
    one, other = scene.holder("one"), scene.holder("other")
    scene.lives(one)
    scene.lives(other)
    scene.time.sleep(60)
    third = scene.holder("other", take_over=True)
    scene.time.sleep(60)
    assert one.successor is None and other.successor == third.mine


@pytest.mark.parametrize("since", ["2026-02-28T10:00:00+01:00", "2026-03-02T10:00:00-12:00", "yesterday", ""])
@pytest.mark.parametrize("start", [-DAY, 0.0, DAY])
def test_clocks_that_are_a_day_off_change_nothing(store: Store, since: str, start: float) -> None:
    """Neither what the records say about time, nor where our own clock begins, nor the disk's times of its files."""
    scene = Scene(store, start)
    first = scene.holder(since=since)
    first.beat()
    for path in Path(store.url).rglob("*.*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + start))
    scene.lives(first)
    with pytest.raises(AliveError):
        scene.holder(since="now")
    assert scene.time.slept == BEAT_SECONDS
    scene.time._every.clear()  # killed
    assert scene.holder(since="now").mine.generation == 2
    assert scene.time.slept == BEAT_SECONDS + PATIENCE_SECONDS


def test_of_many_that_take_over_at_once_each_gets_a_generation_of_its_own(store: Store) -> None:
    scene = Scene(store)
    with ThreadPoolExecutor(8) as pool:
        holds = list(pool.map(lambda _: scene.holder(take_over=True), range(8)))
    assert sorted(hold.mine.generation for hold in holds) == list(range(1, 9))
    for hold in holds:
        hold.beat()
    assert [hold.mine.generation for hold in holds if hold.successor is None] == [8]


def test_of_many_that_find_the_first_gone_one_follows_and_the_others_see_it(store: Store) -> None:
    Scene(store).holder()

    def begin(_: int) -> bool:
        scene = Scene(store)  # each on its own clock
        try:
            hold = scene.holder()
        except AliveError:
            return False
        hold.beat()
        return True

    with ThreadPoolExecutor(4) as pool:
        followed = sum(pool.map(begin, range(4)))
    newest = Chain(store, layout.coordinators("demo")).newest()
    assert newest is not None
    assert newest.generation == 1 + followed, "who found a winner that does not beat on counts it as gone as well"


def test_a_store_that_goes_away_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    backend = DownBackend(tmp_path / "far")
    scene = Scene(Store(backend))
    hold = scene.holder()
    hold.beat()
    backend.down = True
    for _ in range(5):
        hold.beat()
    assert len(scene.told) == 1 and "what runs goes on" in scene.told[0]
    backend.down = False
    hold.beat()
    assert scene.told[1:] == ["the store answers again"]
    assert hold.successor is None
    assert hold.chain.beat(hold.mine) not in (None, b"1")


def test_time_in_which_the_store_was_away_counts_for_nobodys_death(tmp_path: Path) -> None:
    class Slow(FarBackend):
        def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
            if scene.time.slept == PATIENCE_SECONDS - 1:
                scene.time.now += 300  # the call was tried again and again
            return super().parts(key, start)

    scene = Scene(Store(Slow(tmp_path / "far")))
    first = scene.holder()
    scene.time.after(PATIENCE_SECONDS + 5, first.beat)
    with pytest.raises(AliveError):
        scene.holder()


def test_a_record_that_is_damaged_is_named(scene: Scene) -> None:
    scene.holder()
    key = layout.generation(layout.coordinators("demo"), 1)
    scene.store.publish(key, b'{"kind":"Hol')
    with pytest.raises(StoreError, match="damaged") as error:
        scene.holder()
    assert key in error.value.where


def test_the_lock_proves_those_gone_who_held_it_here_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "demo" / "lock"
    with RunLock(path) as first:
        assert first.is_mine
        first.note("mine")
        with RunLock(path) as second:
            assert second.is_taken and not second.is_mine
            second.note("never held it")
            assert not second.proves_gone("mine"), "it lives"
    with RunLock(path) as third:
        assert third.proves_gone("mine")
        assert not third.proves_gone("never held it")
        assert not third.proves_gone("of another machine")


def test_a_lock_that_is_free_here_proves_nothing_of_a_machine_that_shares_the_folder(tmp_path: Path) -> None:
    with RunLock(tmp_path / "lock", "one") as there:
        there.note("lives on")
    with RunLock(tmp_path / "lock", "other") as here:  # where a share keeps locks on each machine by itself
        assert here.is_mine and not here.proves_gone("lives on")


def test_a_command_killed_on_this_machine_is_followed_without_waiting(store: Store, tmp_path: Path) -> None:
    scene = Scene(store)
    with RunLock(tmp_path / "lock") as lock:  # what `driving` did before it was killed
        chain, me = Chain(store, layout.coordinators("demo")), this_process("demo")
        lock.note(me.nonce)
        take(chain, me, scene.watch)
    with driving(store, "demo", tmp_path / "lock", scene.watch, take_over=False) as hold:
        assert hold.mine.generation == 2
    assert scene.time.slept == 0 and scene.told == []


def test_a_driver_on_another_machine_with_the_same_name_is_not_taken_for_gone(scene: Scene, tmp_path: Path) -> None:
    elsewhere = scene.holder()
    scene.lives(elsewhere)
    with (
        pytest.raises(UserError, match="demo is already being driven") as error,
        driving(scene.store, "demo", tmp_path / "lock", scene.watch, take_over=False),
    ):
        pass
    assert error.value.where == str(elsewhere.mine) and "--take-over" in error.value.mend


def test_the_second_on_this_machine_is_refused_at_once(scene: Scene, tmp_path: Path) -> None:
    with driving(scene.store, "demo", tmp_path / "lock", scene.watch, take_over=False) as first:
        with (
            pytest.raises(UserError, match="already being driven") as error,
            driving(scene.store, "demo", tmp_path / "lock", scene.watch, take_over=False),
        ):
            pass
        assert error.value.where == str(first.mine)
        with driving(scene.store, "demo", tmp_path / "lock", scene.watch, take_over=True) as second:
            first.beat()
            assert first.successor == second.mine
    assert scene.time.slept == 0
    assert second.chain.beat(second.mine) == ENDED


def test_driver_and_cleaner_exclude_each_other(scene: Scene, tmp_path: Path) -> None:
    driver = scene.holder()
    scene.lives(driver)
    with pytest.raises(UserError, match="run demo is being driven"), cleaning(scene.store, scene.watch):
        pass
    driver.beat(ended=True)
    scene.time._every.clear()
    with cleaning(scene.store, scene.watch) as cleaner:
        scene.time.every(BEAT_SECONDS, cleaner.beat)
        with pytest.raises(UserError, match="already"), cleaning(scene.store, scene.watch):
            pass
        with (
            pytest.raises(UserError, match="not idle: it is being cleaned") as error,
            driving(scene.store, "demo", tmp_path / "lock", scene.watch, take_over=False),
        ):
            pass
        assert error.value.where == str(cleaner.mine)
    with driving(scene.store, "demo", tmp_path / "lock", scene.watch, take_over=False):
        pass


def test_a_cleaner_that_was_killed_holds_up_one_command_and_no_more(scene: Scene, tmp_path: Path) -> None:
    chain = Chain(scene.store, layout.CLEANERS)
    killed = Hold(chain, take(chain, this_process(""), scene.watch), scene.told.append)
    killed.beat()
    with driving(scene.store, "demo", tmp_path / "lock", scene.watch, take_over=False):
        assert scene.time.slept == PATIENCE_SECONDS
    with driving(scene.store, "demo", tmp_path / "lock", scene.watch, take_over=False):
        assert scene.time.slept == PATIENCE_SECONDS
    killed.beat()
    assert killed.successor is not None, "had it only been frozen, it would stop now"


def test_no_wall_clock_is_read_but_for_the_text_that_people_read() -> None:
    source = Path(generation.__file__).read_text(encoding="utf-8")
    assert source.count("datetime.now") == 1 and "time.time" not in source


DRIVER = """
    import sys, time
    from pathlib import Path
    from far import FarBackend
    from coordinator.generation import Watch, driving
    from shared_store.store import Store

    store = Store(FarBackend(Path(sys.argv[1])))
    with driving(store, "demo", Path(sys.argv[2]), Watch(print), take_over=False) as hold:
        print("driving", flush=True)
        while hold.successor is None:
            time.sleep(0.05)
    print(f"ended, after {hold.successor.process}", flush=True)
"""


def begun(store: Path, lock: Path) -> subprocess.Popen[str]:
    """A process of its own that drives until it is taken over."""
    words = [sys.executable, "-c", textwrap.dedent(DRIVER), str(store), str(lock)]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert process.stdout is not None
    assert process.stdout.readline() == "driving\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP and SIGKILL are of POSIX")
def test_real_processes_one_refused_one_fenced_though_frozen_one_killed(tmp_path: Path) -> None:
    """Machines, as far as anyone can tell: nothing but the store is shared, each has a lock of its own."""
    place, told = tmp_path / "far", list[str]()
    store, watch = Store(FarBackend(place)), Watch(told.append)
    first = begun(place, tmp_path / "lock one")
    try:
        refused = driving(store, "demo", tmp_path / "lock two", watch, take_over=False)
        with pytest.raises(UserError, match="already being driven") as error, refused:
            pass
        assert f"process {first.pid} on " in error.value.where and " since 2" in error.value.where
        assert f"process {first.pid} on " in told[0]
        os.kill(first.pid, signal.SIGSTOP)
        with driving(store, "demo", tmp_path / "lock two", watch, take_over=True):
            os.kill(first.pid, signal.SIGCONT)
            output, _ = first.communicate(timeout=60)
        assert f"ended, after {os.getpid()}" in output
    finally:
        first.kill()
        first.communicate()
    killed = begun(place, tmp_path / "lock one")
    killed.kill()
    killed.communicate()
    told.clear()
    with driving(store, "demo", tmp_path / "lock one", watch, take_over=False) as hold:
        assert hold.mine.generation == 4
    assert told == [], "the lock knows: nothing to wait for"
