"""The attempts on modelled machines: each goes as the scenario says it will, one event a commit. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from coordinator.chance import Chance
from coordinator.events import Fact, Progressed, Start, TaskEnded
from coordinator.scenario import MachineModel, Scenario
from coordinator.simulated_store import SimulatedCommit, SimulatedStore
from coordinator.simulated_time import Calendar
from workers.tasks import Failure, Outcome, Progress, TrainTask

NEARLY = 1e-9  # of an epoch


class Listener(Protocol):
    """Who started attempts and is told of them: a coordinator."""

    def tell(self, fact: Fact) -> None: ...


@dataclass(slots=True)
class Run:
    """One attempt on its machine. `position` counts epochs, at the time `since`; it goes on at `rate` from there."""

    number: int
    task: str
    attempt: int
    machine: MachineModel
    slot: int
    owner: Listener
    micro_batch: int | None = None
    position: float = 0.0
    since: float = 0.0
    rate: float = 0.0
    commit: int = 0
    best_epoch: int = 0
    committed: float = 0.0  # the furthest position that would outlast it
    over: bool = False
    version: int = 0  # of what it will do next: older events of it count no more


@dataclass(slots=True)
class Here:
    """A machine's present state."""

    model: MachineModel
    up: bool = False
    runs: dict[int, Run] = field(default_factory=dict)  # by their numbers


class Attempts:
    """All that runs on the machines of a scenario."""

    def __init__(self, scenario: Scenario, calendar: Calendar, store: SimulatedStore) -> None:
        self.scenario, self.calendar, self.store = scenario, calendar, store
        self.chance = Chance(scenario.seed)
        self.here = {model.name: Here(model) for model in scenario.machines}
        self.runs: dict[tuple[int, str, int], Run] = {}  # that are not over, by (id of the owner, task, attempt)
        self.starts = 0
        self.lost_epochs = 0.0
        tasks = scenario.graph.tasks
        self.epochs = {name: int(t.recipe["epochs"]) for name, t in tasks.items() if isinstance(t, TrainTask)}

    @property
    def now(self) -> float:
        return self.calendar.now

    def begin(self, order: Start, owner: Listener) -> None:
        here = self.here[order.machine]
        self.starts += 1
        run = self.new_run(order, here.model, owner)
        if not here.up:
            return  # it went a moment ago; that news is under way
        self.runs[id(owner), order.task, order.attempt] = run
        here.runs[run.number] = run
        if order.task in self.store.results:
            self.calendar.at(self.now, self.finish, run)
        elif order.task in self.epochs:
            self.resume(run)
        else:
            self.calendar.at(self.now + self.scenario.short_seconds / here.model.speed, self.finish, run)

    def new_run(self, order: Start, model: MachineModel, owner: Listener) -> Run:
        return Run(self.starts, order.task, order.attempt, model, order.slot, owner, order.micro_batch)

    def resume(self, run: Run) -> None:
        """Go on from the newest commit, or begin."""
        run.commit, last = self.store.last(run.task)
        wait = 0.0
        if last is not None:
            run.position, run.best_epoch = last.position, last.best_epoch
            same = last.machine == run.machine.name
            wait = self.scenario.restart_seconds if same else self.scenario.move_seconds
        run.committed = run.position
        run.since = self.now + wait
        self.schedule(run)

    def schedule(self, run: Run) -> None:
        """The next commit, drawn anew: at the next share of an epoch, or the end."""
        run.rate = self.rate(run)
        following = self.following(run)
        run.version += 1
        when = run.since + max(0.0, following - run.position) / run.rate
        self.calendar.at(when, self.reach, run, following, run.version)

    def following(self, run: Run) -> float:
        """The position of the next commit."""
        share = self.scenario.commit_share
        return min((int(run.position / share + NEARLY) + 1) * share, self.scenario.truths[run.task].last_epoch)

    def rate(self, run: Run) -> float:
        """Epochs a second, until the next commit."""
        noise = math.exp(self.scenario.noise * self.chance.normal()) if self.scenario.noise else 1.0
        return run.machine.speed / (self.epoch_seconds(run) * noise)

    def epoch_seconds(self, run: Run) -> float:
        """At speed 1."""
        each = self.scenario.epoch_seconds
        return each if isinstance(each, float) else each[run.task]

    def reach(self, run: Run, position: float, version: int) -> None:
        """A run comes to a commit, or to its end."""
        if run.over or version != run.version:
            return
        self.arrive(run, position)
        if not self.commit(run):
            self.schedule(run)  # another was further: from there
            return
        self.report(run)
        if position >= self.scenario.truths[run.task].last_epoch:
            self.finish(run)
        else:
            self.schedule(run)

    def arrive(self, run: Run, position: float) -> None:
        run.position, run.since = position, self.now
        epoch = int(position + NEARLY)
        run.best_epoch = max((e for e in self.scenario.truths[run.task].improvements if e <= epoch), default=0)

    def report(self, run: Run) -> None:
        self.news(run, Progressed(self.progress(run, run.commit)))

    def progress(self, run: Run, commit: int | None) -> Progress:
        epochs = self.epochs[run.task]
        step, steps, epoch = round(run.position * 100), epochs * 100, int(run.position + NEARLY)
        return Progress(
            run.task, run.attempt, epoch, epochs, step, steps, commit=commit, best_epoch=run.best_epoch or None
        )

    def news(self, run: Run, fact: Progressed | TaskEnded) -> None:
        """The attempt's coordinator hears of it."""
        run.owner.tell(fact)

    def commit(self, run: Run) -> bool:
        """Make the run's position the next commit. False: another's was further, and the run is there now."""
        mine = SimulatedCommit(run.position, run.best_epoch, run.number, run.machine.name)
        while True:
            standing = self.store.put_commit(run.task, run.commit + 1, mine)
            run.commit += 1
            if standing is mine:
                run.committed = run.position
                return True
            run.commit, last = self.store.last(run.task)
            assert last is not None
            if last.position >= run.position:
                run.position, run.best_epoch, run.committed = last.position, last.best_epoch, last.position
                return False

    def stop(self, run: Run) -> None:
        """Commit where it is, and end."""
        if run.over:
            return
        if run.task in self.epochs:
            self.catch_up(run)
            if run.position > run.committed:
                self.commit(run)
        self.fail(run, Failure.STOPPED)

    def fail(self, run: Run, failure: Failure, what: str = "", *, transient: bool = False) -> None:
        """End without a result."""
        self.end(run)
        outcome = Outcome(run.task, run.attempt, failure, what, run.machine.name, transient=transient)
        self.news(run, TaskEnded(outcome))

    def finish(self, run: Run) -> None:
        if run.over:
            return
        self.store.put_result(run.task, run.number)
        self.end(run)
        self.news(run, TaskEnded(Outcome(run.task, run.attempt)))

    def lose(self, run: Run) -> None:
        """The run is gone, and with it what came after its last commit."""
        self.catch_up(run)
        self.lost_epochs += max(0.0, run.position - run.committed)
        self.end(run)

    def kill(self, run: Run) -> None:
        """As ordered."""
        self.lose(run)

    def catch_up(self, run: Run) -> None:
        """Where the run is now."""
        if self.now > run.since:
            run.position += (self.now - run.since) * run.rate
            run.since = self.now

    def end(self, run: Run) -> None:
        run.over = True
        self.here[run.machine.name].runs.pop(run.number, None)
        self.runs.pop((id(run.owner), run.task, run.attempt), None)
