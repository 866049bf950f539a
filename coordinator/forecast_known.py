"""What a forecast is asked with, from the run's journal and store, from what a person gives, or from a trial here."""

from __future__ import annotations

import os
import random
import socket
import statistics
from collections import defaultdict
from pathlib import Path

from coordinator.config import Experiment
from coordinator.data import RunData
from coordinator.estimate import work_key
from coordinator.events import ResultFound
from coordinator.footprints import Footprints, fit_lines, refuse_too_large
from coordinator.forecast_basis import Basis, Standing, learned, machines_of
from coordinator.forecast_plays import PLAYS, Question
from coordinator.graph import Graph
from coordinator.journal import read_journal
from coordinator.ledger import Ledger
from coordinator.measured import MeasuredMachine, read_measured, recipe_key
from coordinator.moves import Moves
from coordinator.placing import rules_of
from coordinator.run_files import JOURNAL
from coordinator.scenario import MachineModel
from coordinator.session import Session
from coordinator.simulated_fleet import joined
from shared_store.commits import last_commit, read_result
from shared_store.store import Store
from workers.recipe import Recipe
from workers.tasks import TrainTask


def ask(
    session: Session, data: RunData, machines: str | None, epoch_seconds: float | None, footprints: Footprints
) -> Question:
    """The question of how the run would go on from here.

    `machines`: a text as `machines_of` reads it, in place of the run's own. `epoch_seconds`: of the recipe with the
    largest images, at speed 1. UserError for a text that is not understood, a recipe that cannot be trained, or one
    that none of the machines has the memory for; which ones have it is said.
    """
    graph = data.graph(session.experiment)
    given = None if machines is None else machines_of(machines)
    known = None if epoch_seconds is not None else known_basis(session, data, graph)
    if known is None:
        slots = slots_here(session.experiment)
        own = (MachineModel(socket.gethostname(), 1.0, slots),)
        known = _given(graph, own, epoch_seconds) if epoch_seconds is not None else _tried(session, data, graph, own)
    if given is not None:
        known = Basis(given, known.epoch_seconds, known.move_seconds, known.said)
    question = question_of(session, graph, known, footprints)
    for line in fit_lines(footprints, known.machines):
        session.say(line)
    refuse_too_large(session.experiment, _beginning(question))
    return question


def known_basis(session: Session, data: RunData, graph: Graph) -> Basis | None:
    """What this run's journal measured, else what the doctor did; None where nothing was, and nothing is tried."""
    return _journaled(session, graph) or _measured(session, data, graph)


def question_of(
    session: Session, graph: Graph, basis: Basis, footprints: Footprints | None = None, plays: int = PLAYS
) -> Question:
    """How the run would go on from here, on this basis."""
    rules = rules_of(session.experiment.fleet, graph, footprints)
    return Question(graph, rules, basis, standing(session.store, graph), lambda play: random.Random(play).random, plays)


def _beginning(question: Question) -> Ledger:
    """What is known before anything starts."""
    ledger = Ledger(question.graph, question.rules)
    for task in question.graph.tasks:
        if task in question.standing.done:
            ledger.apply(ResultFound(task))
    for model in question.basis.machines:
        ledger.apply(joined(model))
    return ledger


def slots_here(experiment: Experiment) -> int:
    """Folds at once on this machine when it has no card."""
    fleet = experiment.fleet
    return fleet.slots or max(1, (os.cpu_count() or 1) // fleet.threads)


def standing(store: Store, graph: Graph) -> Standing:
    """What is done, what has begun, and the epochs that folds ended with."""
    done: set[str] = set()
    epochs: dict[str, int] = {}
    last_epochs: dict[str, list[int]] = defaultdict(list)
    for name, task in graph.tasks.items():
        result = read_result(store, name)
        if result is not None:
            done.add(name)
            if isinstance(task, TrainTask):
                last_epochs[work_key(task)].append(int(result.numbers["epochs"]))
        elif isinstance(task, TrainTask) and (commit := last_commit(store, name)) is not None:
            epochs[name] = commit.epoch
    return Standing(frozenset(done), epochs, last_epochs)


def _journaled(session: Session, graph: Graph) -> Basis | None:
    path = session.path(JOURNAL)
    if not path.exists():
        return None
    try:
        return learned(graph, read_journal(path))
    except ValueError as error:  # another version's
        session.say(f"the run's journal says nothing for a forecast: {error}")
        return None


def _given(graph: Graph, machines: tuple[MachineModel, ...], seconds: float) -> Basis:
    sizes = {name: task.recipe["image_size"] for name, task in graph.tasks.items() if isinstance(task, TrainTask)}
    largest = max(sizes.values(), default=1)
    each = {name: seconds * (size / largest) ** 2 for name, size in sizes.items()}
    return Basis(machines, each, Moves().seconds(""), f"at {seconds:g} seconds an epoch, as given")


def _measured(session: Session, data: RunData, graph: Graph) -> Basis | None:
    """By what `foldfleet doctor` found of the fleet that the run is to use; None where it did not try these recipes."""
    fleet = read_measured(Path.home())
    recipes = [variant.recipe for variant in session.experiment.variants() if variant.repeat == 0]
    speeds = fleet.speeds(recipes)
    if session.experiment.fleet.address is None or not speeds:
        return None
    from workers.trial import Trial  # torch takes seconds to load

    machines = tuple(_model(fleet.machines[name], speed) for name, speed in sorted(speeds.items()))
    each: dict[str, float] = {}
    rows = [row for row in data.table if row.part == "train"]
    for name, task in graph.tasks.items():
        if isinstance(task, TrainTask):
            recipe = Recipe.model_validate(task.recipe)
            scored = sum(row.fold in task.held_out for row in rows)
            steps = {machine: fleet.machines[machine].steps[recipe_key(recipe)] for machine in speeds}
            trials = {machine: Trial(one.step_seconds, one.image_seconds) for machine, one in steps.items()}
            each[name] = statistics.median(
                speeds[machine] * trial.epoch_seconds(recipe, len(rows) - scored, scored)
                for machine, trial in trials.items()
            )
    said = "from the steps that `foldfleet doctor` tried, without the reading of photos"
    return Basis(machines, each, Moves().seconds(""), said)


def _model(one: MeasuredMachine, speed: float) -> MachineModel:
    return MachineModel(
        one.name,
        speed,
        one.slots,
        memory_gb=one.memory_gb,
        system=one.system,
        told_speed=speed,
        link_mb_per_second=one.link_mb_per_second,
        gpu=one.gpu,
        bits=one.bits,
    )


def _tried(session: Session, data: RunData, graph: Graph, machines: tuple[MachineModel, ...]) -> Basis:
    from workers.trial import this_device, try_recipe  # torch takes seconds to load

    session.say("nothing is measured yet: trying a few steps on this machine, which is speed 1")
    device, threads = this_device(), session.experiment.fleet.threads
    found: dict[str, float] = {}
    each: dict[str, float] = {}
    rows = [row for row in data.table if row.part == "train"]
    for name, task in graph.tasks.items():
        if isinstance(task, TrainTask):
            key = work_key(task)
            if key not in found:
                recipe = Recipe.model_validate(task.recipe)
                scored = sum(row.fold in task.held_out for row in rows)
                trial = try_recipe(recipe, len(task.classes), device, threads)
                found[key] = trial.epoch_seconds(recipe, len(rows) - scored, scored)
            each[name] = found[key]
    said = f"from a few steps on this machine's {device}, without the reading of photos"
    return Basis(machines, each, Moves().seconds(""), said)
