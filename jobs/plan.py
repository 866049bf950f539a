"""Dry run: what would be trained from these photos, what is done already, where it goes. Nothing starts.

With --simulate also when it would end, where each fold would run, and what one more machine would save:
on the machines as this run's journal knows them, or on those of --machines 2070s:1.15,1060:0.5:6gb:1slot
(name, speed, memory, slots). Nothing measured yet: a few steps are tried here, where speed is 1, unless
--epoch-seconds says how long an epoch takes at speed 1.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.data import describe, findings, prepare_data
from coordinator.footprints import reckon
from coordinator.forecast import forecast
from coordinator.forecast_known import ask
from coordinator.forecast_view import show_forecast
from coordinator.overview import overview
from coordinator.placing import check_placing
from coordinator.session import Session
from coordinator.stages import missing
from coordinator.variants import recipe_lines
from jobs.console import done
from jobs.run_command import own_flags, run_command


@dataclass(frozen=True)
class _Simulated:
    simulate: bool = False
    machines: str | None = None
    epoch_seconds: float | None = None


def main(arguments: Sequence[str]) -> int:
    asked, rest = own_flags(_Simulated, "plan", arguments)
    return run_command("plan", __doc__, lambda session: _plan(session, asked, rest), rest)


def _plan(session: Session, asked: _Simulated, arguments: Sequence[str]) -> None:
    data = prepare_data(session.experiment, session.store, session.console)
    session.console.print(describe(data))
    for line in findings(data.prepared, shown=10):
        session.say(line)
    graph = data.graph(session.experiment)
    check_placing(session.experiment.fleet, graph)
    to_do = missing(session, graph)
    for line in overview(session, data, graph, to_do):
        session.say(line)
    for line in recipe_lines(session.experiment.variants()):
        session.say(line)
    with session.console.status("reckoning what a fold takes of a card's memory"):
        footprints = reckon(session.experiment, graph, session.say)
    if asked.simulate or asked.machines is not None:
        question = ask(session, data, asked.machines, asked.epoch_seconds, footprints)
        show_forecast(session.console, forecast(question), question.basis, question.plays)
    done(f"{len(to_do)} of {len(graph.tasks)} tasks would run", f"foldfleet pipeline {shlex.join(arguments)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
