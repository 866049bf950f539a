"""How a run stands, from any machine that reaches the store: machines, folds, what is done, what happened last.

While it goes on and after it. --watch: anew every few seconds, until the run is over, or Ctrl-C.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from rich.live import Live

from coordinator.data import recorded_data
from coordinator.followed import Followed
from coordinator.followed_view import shown
from coordinator.generation import Watch
from coordinator.placing import rules_of
from coordinator.session import Session
from coordinator.view import summary
from jobs.console import done
from jobs.run_command import again, own_flags, run_command

_WATCH_SECONDS, _REST = 3.0, 5  # between two looks; how many times as long as a look takes


@dataclass(frozen=True)
class _Watch:
    watch: bool = False


def main(arguments: Sequence[str]) -> int:
    asked, rest = own_flags(_Watch, "status", arguments)
    return run_command("status", __doc__, lambda session: _status(session, asked.watch), rest)


def _status(session: Session, watch: bool) -> None:
    graph = recorded_data(session.store, session.run).graph(session.experiment)
    followed = Followed(session.store, session.run, graph, rules_of(session.experiment.fleet, graph))
    followed.look(time.monotonic())
    if watch:
        _watched(followed, session)
    elif not followed.drive.ledger.all_done:
        followed.find_driver(Watch(session.say))
    session.console.print(shown(followed, time.monotonic(), session.console.width, None))
    next_step = str(session.path("report.html"))
    if not followed.drive.ledger.all_done:
        next_step = again(session, "status" if followed.is_driven(time.monotonic()) else "pipeline")
    done(f"{len(followed.results)} of {len(graph.tasks)} tasks of the run {session.run} are done", next_step)


def _watched(followed: Followed, session: Session) -> None:
    """On a terminal the screen, again and again; piped, a line whenever a task begins or ends."""
    console, told = session.console, ""
    with Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext() as live:
        while not followed.is_over and followed.is_driven(time.monotonic()):
            began, line = time.monotonic(), summary(followed.drive.ledger)
            if live is not None:
                live.update(shown(followed, time.monotonic(), *console.size), refresh=True)
            elif line != told:
                session.say(line)
                told = line
            time.sleep(max(_WATCH_SECONDS, _REST * (time.monotonic() - began)))
            followed.look(time.monotonic())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
