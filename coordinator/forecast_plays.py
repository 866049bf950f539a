"""A run played by the simulator, again and again, with how folds end drawn anew: what ran where, and when. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coordinator.events import Event, Kill, ResultFound, Start, TaskEnded
from coordinator.fit import refusal
from coordinator.forecast_basis import SHORT_SECONDS, Basis, Chance, Standing, draw
from coordinator.graph import Graph
from coordinator.ledger import Ledger
from coordinator.retry import Rules
from coordinator.scenario import DRIVER, MachineModel, Scenario
from coordinator.simulate import Simulation
from coordinator.simulated_store import SimulatedCommit
from shared_store.errors import UserError
from workers.tasks import TrainTask

PLAYS = 20
NOISE = 0.1  # standard deviation of the logarithm of an epoch's seconds
RESTART_SECONDS = 10.0  # a fold that goes on where it was
_MOST_COMMITS = 4  # an epoch: a play with more is no truer


@dataclass(frozen=True)
class Question:
    """What is asked: this work by these rules, on what is known. `chances` gives every play its random numbers."""

    graph: Graph
    rules: Rules
    basis: Basis
    standing: Standing
    chances: Callable[[int], Chance]
    plays: int = PLAYS


@dataclass
class Span:
    """One attempt at a fold in one play."""

    task: str
    machine: str
    begins: float
    ends: float = math.nan


@dataclass
class Play:
    """One play as it was watched. Seconds from now."""

    finish: float = 0.0
    spans: list[Span] = field(default_factory=list)
    _running: dict[str, Span] = field(default_factory=dict)

    def watch(self, at: float, event: Event, ledger: Ledger) -> None:
        """What the simulation tells."""
        match event:
            case Start(task, machine) if isinstance(ledger.graph.tasks[task], TrainTask):
                self._running[task] = Span(task, machine, at)
                self.spans.append(self._running[task])
            case TaskEnded(outcome) if outcome.task in self._running:
                self._running.pop(outcome.task).ends = at
            case Kill(task) if task in self._running:
                self._running.pop(task).ends = at


def all_plays(question: Question, machines: Sequence[MachineModel]) -> list[Play]:
    """Every play of the question, on these machines. UserError when a task fits none of them."""
    return [_play(question, machines, number) for number in range(question.plays)]


def _play(question: Question, machines: Sequence[MachineModel], number: int) -> Play:
    graph, basis, standing = question.graph, question.basis, question.standing
    scenario = Scenario(
        graph=graph,
        machines=(*machines, DRIVER),
        truths=draw(graph, standing, question.chances(number)),
        epoch_seconds=basis.epoch_seconds,
        short_seconds=SHORT_SECONDS,
        commit_share=_commit_share(graph, basis),
        move_seconds=basis.move_seconds,
        restart_seconds=RESTART_SECONDS,
        noise=NOISE,
        rules=question.rules,
        seed=number,
    )
    play = Play()
    simulation = Simulation(scenario, watch=play.watch)
    for task in graph.tasks:
        if task in standing.done:
            simulation.store.put_result(task, 0)
            simulation.tell(ResultFound(task))
        elif (epochs := standing.epochs.get(task, 0)) > 0:
            simulation.store.put_commit(task, 1, SimulatedCommit(float(epochs), 0, 0, ""))
    played = simulation.play()
    if not played.finished:
        raise _stuck(simulation.ledger)
    play.finish = played.makespan
    return play


def _commit_share(graph: Graph, basis: Basis) -> float:
    """From commit to commit, in epochs: every epoch ends with one."""
    most = 1
    for name, seconds in basis.epoch_seconds.items():
        task = graph.tasks[name]
        assert isinstance(task, TrainTask), task.name
        most = max(most, math.ceil(seconds / (60 * task.recipe["checkpoint_minutes"])))
    return 1 / min(most, _MOST_COMMITS)


def _stuck(ledger: Ledger) -> UserError:
    hosts = [host.joined for _, host in sorted(ledger.slots.hosts.items())]
    for name, entry in ledger.entries.items():
        rules = ledger.rules
        if entry.missing == 0 and name not in ledger.running:
            why = refusal(entry.task, rules.needs.get(name), rules.pins.get(name), entry.history(), hosts)
            if why:
                why, _, mend = why.partition("\n  mend:  ")
                mend = mend or "add a machine that it fits, or change fleet.pin or fleet.needs"
                return UserError(f"{entry.task.name} would wait for ever: {why}", where="the machines", mend=mend)
    raise AssertionError("a play came to no end\n" + "\n".join(map(ledger.story, ledger.running)))
