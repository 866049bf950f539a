"""Look at every machine before hours are spent: versions, cards, real steps of the recipe, disk, store, ports, clock.

foldfleet doctor                  this machine alone
foldfleet doctor cluster.yaml     the machines that it names, over SSH: also those that cannot join
foldfleet doctor HEAD:6379        the machines of a fleet, through Ray, on one of them (`auto`: the fleet that it is in)

Steps are of --config's recipes (else the competition's), the store is --store. What was measured is kept on the head
for the planner.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from coordinator.checks import Answer, Expected, judge
from coordinator.config import Experiment, parse
from coordinator.doctor import OverSsh, alone, examined_here, keep_here, recipes_of, through_ray, to_text
from coordinator.doctor_view import show_findings
from coordinator.findings import Finding, State
from coordinator.fleet_file import read_fleet_file
from coordinator.measured import measured_fleet
from coordinator.remote import Remote
from coordinator.session import read_config
from jobs.arguments import split_off_sections
from jobs.console import command, done, terminal
from shared_store.errors import RunFailedError
from workers.footprint import Footprint


@dataclass(frozen=True)
class Doctor:
    where: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[CLUSTER.YAML | HEAD:6379 | auto]")] = ""
    """The machines to look at; nothing: this one."""
    config: str | None = None
    """YAML file with the recipes to try."""
    store: str | None = None
    """Folder or URL of the store to try from every machine."""
    reach: str = ""
    """HOST:PORT,HOST:PORT that this machine must reach."""
    json: bool = False
    """One line for programs: what this machine says of itself, not judged."""


def main(arguments: Sequence[str]) -> int:
    return command("doctor", _doctor, arguments)


def _doctor(arguments: Sequence[str]) -> None:
    rest, overrides = split_off_sections(arguments, "foldfleet doctor")
    kind = tyro.conf.FlagCreatePairsOff[Doctor]
    given: Doctor = tyro.cli(kind, prog="foldfleet doctor", description=__doc__, args=rest)
    if given.store is not None:
        overrides.append(("store.url", given.store))
    text, where = ("", "the command line") if given.config is None else (read_config(given.config), given.config)
    experiment = parse(text, where, overrides)
    with_store = (
        given.store is not None
        or any(key == "store.url" for key, _ in overrides)
        or (given.config is not None and "url" in experiment.store.model_fields_set)
    )
    doors = [door for door in given.reach.split(",") if door]
    if given.json:
        print(to_text(examined_here(experiment, with_store, doors)))
        return
    answers, keep = _asked(given, experiment, with_store, doors)
    findings = judge(answers, _expected(answers, experiment, alone=not given.where))
    show_findings(terminal(), findings)
    keep(measured_fleet(answers, recipes_of(experiment), experiment.fleet.threads).model_dump_json())
    _end(findings, given, len(answers))


def _asked(
    given: Doctor, experiment: Experiment, with_store: bool, doors: Sequence[str]
) -> tuple[list[Answer], Callable[[str], None]]:
    """What the machines said, and how to keep what was measured where the coordinator will look for it."""
    if not given.where:
        print("examining this machine ...", flush=True)
        return [alone(experiment, with_store, doors)], lambda _text: None
    if given.where.endswith((".yaml", ".yml")):
        fleet = read_fleet_file(Path(given.where))
        remote = Remote(fleet.auth.ssh_user, fleet.key, os.environ.get("FOLDFLEET_SSH_CONFIG"))
        over_ssh = OverSsh(fleet, remote.run, _tell)
        return over_ssh.examined(experiment, with_store), over_ssh.keep
    values = experiment.model_copy(update={"fleet": experiment.fleet.model_copy(update={"address": given.where})})
    return through_ray(values, with_store, _tell), keep_here


def _tell(sentence: str) -> None:
    print(sentence, flush=True)


def _expected(answers: Sequence[Answer], experiment: Experiment, alone: bool) -> Expected:
    """What the machines are held against. What a fold takes of a card is reckoned where there is a card: seconds."""
    examined = [answer.examined for answer in answers if answer.examined is not None]
    recipes = recipes_of(experiment)
    footprints: dict[str, Footprint] = {}
    if any(one.cards for one in examined):
        from workers.memory import footprint  # torch takes seconds to load

        found = {name: footprint(recipe) for name, recipe in recipes.items()}
        footprints = {name: one for name, one in found.items() if one is not None}
    return Expected(None if alone else answers[0].examined, recipes, footprints)


def _end(findings: Sequence[Finding], given: Doctor, machines: int) -> None:
    """RunFailedError where something would stop a run."""
    counts = {state: sum(one.state is state for one in findings) for state in State}
    words = f"{machines} machine{'s' * (machines > 1)} examined: {counts[State.FAIL]} fail, {counts[State.WARN]} warn"
    again = f"foldfleet doctor {quote(given.where)}".strip()
    if counts[State.FAIL]:
        raise RunFailedError(f"{words}\nnext: mend what fails, then: {again}", exit_code=2)
    step = "foldfleet plan DATA --simulate" if given.where else "foldfleet pipeline DATA --run NAME"
    done(words, step)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
