"""Look at every machine before hours are spent: versions, cards, real steps of the recipe, disk, store, ports, clock.

foldfleet doctor                  this machine alone
foldfleet doctor cluster.yaml     the machines that it names, over SSH: also those that cannot join
foldfleet doctor HEAD:6379        the machines of a fleet, through Ray, on one of them (`auto`: the fleet that it is in)

Steps are of --config's recipes, else the competition's. What was measured is kept for the planner: over SSH on the
head, through Ray on the machine where this is typed. So type it where the coordinator will run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from coordinator.checks import judge
from coordinator.config import parse
from coordinator.doctor import Alone, Way, examined_here, expected, recipes_of, to_text
from coordinator.doctor_ssh import OverSsh
from coordinator.doctor_view import names_a_file, next_step, show_findings, summary
from coordinator.findings import State
from coordinator.fleet_file import read_fleet_file
from coordinator.measured import measured_fleet
from coordinator.remote import remote_of
from coordinator.session import read_config
from jobs.arguments import split_off_sections
from jobs.console import command, done, terminal
from shared_store.errors import RunFailedError

_say = partial(print, flush=True)


@dataclass(frozen=True)
class Doctor:
    where: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[CLUSTER.YAML | HEAD:6379 | auto]")] = ""
    """The machines to look at; nothing: this one."""
    config: str | None = None
    """YAML file with the recipes to try."""
    store: str | None = None
    """Folder or URL of the store to try."""
    reach: str = ""
    """HOST:PORT,HOST:PORT that this machine must reach."""
    json: bool = False
    """One line for programs: what this machine says of itself, not judged."""


_DOCTOR = tyro.conf.FlagCreatePairsOff[Doctor]


def main(arguments: Sequence[str]) -> int:
    return command("doctor", _doctor, arguments)


def _doctor(arguments: Sequence[str]) -> None:
    rest, overrides = split_off_sections(arguments, "foldfleet doctor")
    given: Doctor = tyro.cli(_DOCTOR, prog="foldfleet doctor", description=__doc__, args=rest)
    if given.store is not None:
        overrides.append(("store.url", given.store))
    text, where = ("", "the command line") if given.config is None else (read_config(given.config), given.config)
    experiment = parse(text, where, overrides)
    with_store = "url" in experiment.store.model_fields_set
    doors = [door for door in given.reach.split(",") if door]
    if given.json:
        print(to_text(examined_here(experiment, with_store, doors)))
        return
    way = _way(given.where, doors)
    answers = way.examined(experiment, with_store)
    findings = judge(answers, expected(answers, experiment))
    show_findings(terminal(), findings)
    way.keep(measured_fleet(answers, recipes_of(experiment), experiment.fleet.threads).model_dump_json())
    if any(one.state is State.FAIL for one in findings):
        raise RunFailedError(f"{summary(findings)}\nnext: mend what fails, then the same command again", exit_code=2)
    done(summary(findings), next_step(given.where, given.store, given.config))


def _way(where: str, doors: Sequence[str]) -> Way:
    if not where:
        return Alone(doors, _say)
    if not names_a_file(where):
        from coordinator.doctor_ray import ThroughRay  # Ray takes seconds to load

        return ThroughRay(where, _say)
    fleet = read_fleet_file(Path(where))
    return OverSsh(fleet, remote_of(fleet).run, _say)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
