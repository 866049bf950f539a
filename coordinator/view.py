"""What the person sees while work goes on: a live screen or a bar on a terminal, plain lines when piped.

A view is a `drive.Watch`: told every fact and order right after the ledger took it in. It decides nothing.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from coordinator.display import drawn
from coordinator.estimate import Interval
from coordinator.event_lines import EventLines
from coordinator.events import Event, Progressed
from coordinator.finish import Finish
from coordinator.followed import show_standing
from coordinator.ledger import Ledger, State
from coordinator.machine_lines import duration
from coordinator.watched import Watched
from shared_store.store import Store
from workers.tasks import Task

_REFRESH_SECONDS = 0.5
_LINES_ABOVE = 6  # of what happened, which stay in sight above the screen; fewer in a low terminal
Wall = Callable[[], datetime]


class View:
    """Shows a ledger. Use as a context manager around the drive. `clock` gives seconds, `wall` the time of day."""

    def __init__(
        self, console: Console, clock: Callable[[], float] = time.monotonic, wall: Wall = datetime.now
    ) -> None:
        self.console = console
        self._clock, self._wall = clock, wall
        self._lines, self._watched = EventLines(), Watched()
        self._finish = Finish(clock, random.Random(0).random)
        self._pending: list[str] = []
        self._drawn_at = -math.inf
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._print_pending()
            self._live.stop()

    def __call__(self, event: Event, ledger: Ledger) -> None:
        line = self._lines.line(event, ledger)
        if self._live is None:
            if line:
                self._print(line)
            return
        self._watched.take(event, ledger)
        self._finish.tell(event)
        if line and (not isinstance(event, Progressed) or event.progress.note):  # the screen has the numbers
            self._pending.append(f"{self._wall():%H:%M:%S} {line}")
        now = self._clock()
        if now - self._drawn_at >= _REFRESH_SECONDS:  # in the driver's own thread: a ledger must not change meanwhile
            self._drawn_at = now
            self._print_pending()
            self._live.update(self.screen(ledger), refresh=True)

    def show_standing(self, store: Store, tasks: Mapping[str, Task]) -> None:
        """Let the screen begin with what stands of the tasks."""
        if self._live is not None:
            show_standing(self._watched, store, tasks)

    def screen(self, ledger: Ledger) -> Text:
        """What stands below the lines, within the terminal's width and height."""
        finish = finish_line(self._finish.look(ledger), ledger, self._wall())
        width, height = self.console.size
        room = height - min(_LINES_ABOVE, height // 5)
        return drawn(self._watched.screen(ledger, [summary(ledger), finish], room), width)

    def _print_pending(self) -> None:
        if self._pending:
            lines, self._pending = self._pending, []
            self._print("\n".join(lines))

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def finish_line(finish: Interval | None, ledger: Ledger, wall: datetime) -> str:
    """`expected finish 16:40, between 15:55 and 17:30: in 2 h 10 min`. `wall`: the time of day of the ledger's now."""
    if finish is None:
        why = "known once a machine is here for all" if ledger.estimates.timed else "known once an epoch is timed"
        return f"expected finish: {why}"
    left = [max(0.0, at - ledger.now) for at in finish]
    low, middle, high = (_of_day(wall + timedelta(seconds=seconds), wall) for seconds in left)
    between = "" if low == high else f", between {low} and {high}"
    return f"expected finish {middle}{between}: in {duration(left[1])}"


def _of_day(at: datetime, today: datetime) -> str:
    return f"{at:%H:%M}" if at.date() == today.date() else f"{at:%a %d %b %H:%M}"


def summary(ledger: Ledger) -> str:
    """`7 of 18 tasks done, 2 running, 9 waiting`, with what failed if anything did."""
    counts = ledger.counts
    waiting = counts[State.WAITING] + counts[State.READY] + counts[State.ENDED]
    parts = [f"{counts[State.DONE]} of {len(ledger.entries)} tasks done", f"{counts[State.RUNNING]} running"]
    parts += [f"{waiting} waiting"] if waiting else []
    parts += [f"{counts[State.FAILED]} failed"] if counts[State.FAILED] else []
    parts += [f"{counts[State.BLOCKED]} blocked by a failure"] if counts[State.BLOCKED] else []
    return ", ".join(parts)


def size(count: float) -> str:
    """`812 bytes`, `212 MB`, `1.9 GB`: three digits at most."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 9.95 or unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


@contextmanager
def shown(console: Console, what: str, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress callback (done, all): a bar on a terminal, a line for each tenth when piped.

    Bytes come with their speed.
    """
    numbers = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *numbers, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar_task = bar.add_task(what, total=None, visible=False)
        told, began = 0, time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal told
            bar.update(bar_task, completed=done, total=total, visible=True)
            tenths = done * 10 // total if total else 0
            if not console.is_terminal and tenths > told:
                told = tenths
                line = f"{done} of {total}"
                if in_bytes:
                    line = f"{size(done)} of {size(total)}, {size(done / max(time.monotonic() - began, 1e-3))}/s"
                console.print(f"{what}: {line}", highlight=False)

        yield progress
