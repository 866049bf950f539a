"""A run played out: modelled machines and a modelled store around the real ledger and plan. Pure.

An event heap, keyed by (time, counter), moves time from one thing that happens to the next. What happens at one instant
makes one turn of the coordinator, as in drive.py: tick, facts, and orders until the plan is silent.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.events import (
    Event,
    Fact,
    Kill,
    MachineCut,
    MachineDraining,
    MachineJoined,
    MachineLeft,
    MachineProbed,
    Migrate,
    Order,
    Probe,
    Progressed,
    RunBegan,
    Start,
    Stop,
    TaskEnded,
    Tick,
)
from coordinator.ledger import Ledger
from coordinator.plan import plan
from coordinator.scenario import Ending, MachineModel, Outage, Scenario
from coordinator.simulated_store import SimulatedCommit, SimulatedStore
from workers.tasks import Failure, Outcome, Progress, TrainTask

Planner = Callable[[Ledger], list[Order]]
Watch = Callable[[float, Event, Ledger], None]


@dataclass(slots=True)
class Run:
    """One attempt on its machine. `position` counts epochs, at the time `since`; it goes on at `rate` from there."""

    number: int
    task: str
    attempt: int
    machine: MachineModel
    slot: int
    position: float = 0.0
    since: float = 0.0
    rate: float = 0.0
    commit: int = 0
    best_epoch: int = 0
    committed: float = 0.0
    over: bool = False
    version: int = 0


@dataclass
class Played:
    """What became of a simulation. Seconds are simulated ones."""

    makespan: float
    finished: bool
    ledger: Ledger
    store: SimulatedStore
    events: int = 0
    starts: int = 0
    moves: int = 0
    lost_epochs: float = 0.0


@dataclass(slots=True)
class Here:
    """A machine's present state."""

    model: MachineModel
    up: bool = False
    runs: dict[int, Run] = field(default_factory=dict)  # by slot


class Simulation:
    """One scenario, played once. `planner` and `ledger` stand in for the real ones in comparisons."""

    def __init__(
        self, scenario: Scenario, planner: Planner = plan, ledger: type[Ledger] = Ledger, watch: Watch | None = None
    ) -> None:
        self.scenario, self.planner, self.watch = scenario, planner, watch
        self.random = random.Random(scenario.seed)
        self.store = SimulatedStore()
        self.ledger = ledger(scenario.graph, scenario.rules)
        self.now = 0.0
        self.played = Played(0.0, False, self.ledger, self.store)
        self.here = {model.name: Here(model) for model in scenario.machines}
        self.runs: dict[tuple[str, int], Run] = {}  # what the coordinator started and has not heard the end of
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._counter = 0
        self._facts: list[Fact] = []
        for model in scenario.machines:
            self.at(0.0, self.come, model)
            for outage in model.outages:
                if outage.ending is Ending.PREEMPTION:
                    self.at(max(0.0, outage.down - outage.notice), self.announce, model, outage)
                self.at(outage.down, self.go, model, outage)
                self.at(outage.up, self.come, model)

    def at(self, time: float, what: Callable[..., None], *arguments: object) -> None:
        """Let something happen at `time` seconds, after what was asked for before at the same time."""
        self._counter += 1
        heapq.heappush(self._heap, (time, self._counter, what, arguments))

    def tell(self, fact: Fact) -> None:
        """The coordinator hears of something with the next turn."""
        self._facts.append(fact)

    def play(self) -> Played:
        """To the end of the run, or of the scenario's horizon."""
        self.turn([RunBegan(tuple(self.scenario.graph.tasks))])
        while self.ledger.finished is None and self._heap and self._heap[0][0] <= self.scenario.horizon:
            self.now = self._heap[0][0]
            while self._heap and self._heap[0][0] == self.now:
                _, _, what, arguments = heapq.heappop(self._heap)
                self.played.events += 1
                what(*arguments)
            facts, self._facts = self._facts, []
            self.turn(facts)
        self.played.makespan, self.played.finished = self.now, self.ledger.finished is not None
        return self.played

    def turn(self, facts: list[Fact]) -> None:
        """One turn of the coordinator."""
        self.take(Tick(self.now))
        for fact in facts:
            self.take(fact)
        while orders := self.planner(self.ledger):
            for order in orders:
                self.take(order)
                self.carry_out(order)

    def take(self, event: Event) -> None:
        """The ledger takes in a fact or an order."""
        self.ledger.apply(event)
        if self.watch is not None:
            self.watch(self.now, event, self.ledger)

    def carry_out(self, order: Order) -> None:
        match order:
            case Start():
                self.begin(order)
            case Stop(task, attempt) | Migrate(task, attempt):
                self.played.moves += isinstance(order, Migrate)
                self.at(self.now, self.stop, self.runs[task, attempt])
            case Kill(task, attempt):
                self.end(self.runs[task, attempt])
            case Probe(machine):
                self.at(self.now + 1.0, self.tell, MachineProbed(machine, True))

    # Machines

    def come(self, model: MachineModel) -> None:
        self.here[model.name].up = True
        memory = model.memory_gb if model.told_memory_gb is None else model.told_memory_gb
        self.tell(
            MachineJoined(
                model.name, model.slots, model.kinds, True, memory, model.system, model.labels, model.told_speed
            )
        )

    def announce(self, model: MachineModel, outage: Outage) -> None:
        if self.here[model.name].up:
            self.tell(MachineDraining(model.name, outage.down))

    def go(self, model: MachineModel, outage: Outage) -> None:
        here = self.here[model.name]
        if not here.up:
            return
        here.up = False
        for run in list(here.runs.values()):
            self.lose(run)
        gone = MachineCut if outage.ending is Ending.CUT else MachineLeft
        self.tell(gone(model.name, outage.ending.value))

    # Attempts

    def begin(self, order: Start) -> None:
        here = self.here[order.machine]
        self.played.starts += 1
        run = Run(self.played.starts, order.task, order.attempt, here.model, order.slot)
        self.runs[order.task, order.attempt] = run
        if not here.up:
            return  # it went a moment ago; that news is under way
        here.runs[order.slot] = run
        task = self.scenario.graph.tasks[order.task]
        if order.task in self.store.results:
            self.at(self.now, self.finish, run)
        elif isinstance(task, TrainTask):
            self.resume(run)
        else:
            self.at(self.now + self.scenario.short_seconds / here.model.speed, self.finish, run)

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
        scenario, share = self.scenario, self.scenario.commit_share
        each = scenario.epoch_seconds
        seconds = each if isinstance(each, float) else each[run.task]
        noise = self.random.lognormvariate(0.0, scenario.noise) if scenario.noise else 1.0
        run.rate = run.machine.speed / (seconds * noise)
        following = min((int(run.position / share + 1e-9) + 1) * share, scenario.truths[run.task].last_epoch)
        run.version += 1
        self.at(run.since + (following - run.position) / run.rate, self.reach, run, following, run.version)

    def reach(self, run: Run, position: float, version: int) -> None:
        """A run comes to a commit, or to its end."""
        if run.over or version != run.version:
            return
        run.position, run.since = position, self.now
        truth = self.scenario.truths[run.task]
        epoch = int(position + 1e-9)
        run.best_epoch = max((e for e in truth.improvements if e <= epoch), default=0)
        if not self.commit(run):
            self.schedule(run)  # another was further: from there
            return
        self.report(run)
        if position >= truth.last_epoch:
            self.finish(run)
        else:
            self.schedule(run)

    def report(self, run: Run) -> None:
        epochs = self.ledger.estimates.epochs[run.task]
        step, steps = round(run.position * 100), epochs * 100
        epoch = int(run.position + 1e-9)
        self.tell(
            Progressed(
                Progress(
                    run.task, run.attempt, epoch, epochs, step, steps, commit=run.commit, best_epoch=run.best_epoch
                )
            )
        )

    def commit(self, run: Run) -> bool:
        """Make the run's position the next commit. False: another's was further, and the run is there now."""
        mine = SimulatedCommit(run.position, run.best_epoch, run.number, run.machine.name)
        while True:
            standing = self.store.put_commit(run.task, run.commit + 1, mine)
            run.commit += 1
            if standing is mine:
                run.committed = run.position
                return True
            newest, last = self.store.last(run.task)
            assert last is not None
            run.commit = newest
            if last.position >= run.position:
                run.position, run.best_epoch, run.committed = last.position, last.best_epoch, last.position
                return False

    def stop(self, run: Run) -> None:
        """Commit where it is, and end."""
        if run.over:
            return
        if isinstance(self.scenario.graph.tasks[run.task], TrainTask):
            self.catch_up(run)
            if run.position > run.committed:
                self.commit(run)
        self.end(run)
        self.tell(TaskEnded(Outcome(run.task, run.attempt, Failure.STOPPED)))

    def finish(self, run: Run) -> None:
        if run.over:
            return
        self.store.put_result(run.task, run.number)
        self.end(run)
        self.tell(TaskEnded(Outcome(run.task, run.attempt)))

    def lose(self, run: Run) -> None:
        """The run is gone, and with it what came after its last commit."""
        self.catch_up(run)
        self.played.lost_epochs += max(0.0, run.position - run.committed)
        self.end(run)

    def catch_up(self, run: Run) -> None:
        """Where the run is now."""
        if self.now > run.since:
            run.position += (self.now - run.since) * run.rate
            run.since = self.now

    def end(self, run: Run) -> None:
        run.over = True
        here = self.here[run.machine.name]
        if here.runs.get(run.slot) is run:
            del here.runs[run.slot]
        self.runs.pop((run.task, run.attempt), None)


def simulate(scenario: Scenario, planner: Planner = plan) -> Played:
    """Play a scenario to its end."""
    return Simulation(scenario, planner).play()
