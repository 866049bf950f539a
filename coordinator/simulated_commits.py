"""How attempts commit to a store that fails: slow commits, lost answers, races, a disk of each machine's own. Pure.

The store's rules are those of workers/chain.py: commit n of a task is put once; whoever loses takes the number behind
the newest, or goes on from that where it is further; one result per task.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from coordinator.events import Progressed, Start, TaskEnded
from coordinator.faults import Faults
from coordinator.scenario import MachineModel, Scenario
from coordinator.simulated_attempts import NEARLY, Listener, Run
from coordinator.simulated_fleet import SimulatedFleet
from coordinator.simulated_store import SimulatedCommit, SimulatedStore
from coordinator.simulated_time import Calendar
from workers.tasks import Failure, Outcome

PATIENCE_SECONDS = 60.0  # with a store that does not answer
_MOST_NOISE = 3.0  # standard deviations


class Witness(Protocol):
    """Who holds what happens against what may happen."""

    def began(self, run: Run) -> None:
        """An attempt begins on its machine."""

    def resumed(self, run: Run) -> None:
        """It goes on from its position."""

    def stored(self, run: Run) -> None:
        """It wrote into the store: a commit or the result of its task."""

    def lost(self, run: Run) -> None:
        """It is over, with whatever work was on no disk."""


@dataclass(slots=True)
class FaultyRun(Run):
    """An attempt whose commits take their time."""

    hung: bool = False
    snapshot: SimulatedCommit | None = None  # the newest


class CommittingFleet(SimulatedFleet):
    """Machines whose attempts commit as they can."""

    def __init__(
        self, scenario: Scenario, faults: Faults, calendar: Calendar, store: SimulatedStore, witness: Witness
    ) -> None:
        self.faults, self.witness = faults, witness
        self.happened: Counter[str] = Counter()
        self.tiers: dict[tuple[str, str], SimulatedCommit] = {}  # the furthest snapshot by machine and task
        super().__init__(scenario, calendar, store)

    def reaches(self, owner: Listener, machine: str) -> bool:
        """Whether orders and news pass between a coordinator and a machine now."""
        return self.here[machine].up

    def new_run(self, order: Start, model: MachineModel, owner: Listener) -> FaultyRun:
        return FaultyRun(self.starts, order.task, order.attempt, model, order.slot, owner, order.micro_batch)

    def resume(self, run: Run) -> None:
        """From the furthest state: on this machine, or in the store."""
        if self.faults.is_store_down(self.now):
            self.calendar.at(self.now + PATIENCE_SECONDS, self._give_up_on_store, run, self.resume)
            return
        if run.over:
            return
        run.commit, last = self.store.last(run.task)
        tier = self.tiers.get((run.machine.name, run.task))
        if tier is not None and (last is None or tier.position > last.position):
            self.happened["resumed further than the store was"] += 1
            last = tier
        wait = 0.0
        if last is not None:
            run.position, run.best_epoch = last.position, last.best_epoch
            same = last.machine == run.machine.name
            wait = self.scenario.restart_seconds if same else self.scenario.move_seconds
        run.committed, run.since = run.position, self.now + wait
        self.witness.resumed(run)
        if run.position >= self.scenario.truths[run.task].last_epoch:
            self.calendar.at(run.since, self.finish, run)
        else:
            self.schedule(run)

    def following(self, run: Run) -> float:
        """So early that the commit lands before an interval's work is at risk; and at the end of every epoch."""
        fastest = run.machine.speed / self.epoch_seconds(run) * math.exp(_MOST_NOISE * self.scenario.noise)
        every = self.scenario.commit_share - self.faults.landing_seconds * fastest
        return min(run.position + every, math.floor(run.position + NEARLY) + 1.0)

    def rate(self, run: Run) -> float:
        noise = max(-_MOST_NOISE, min(_MOST_NOISE, self.chance.normal())) * self.scenario.noise
        hot = self.faults.is_hot(run.machine.name, self.now)
        self.happened["commits while hot"] += hot
        return run.machine.speed / (self.epoch_seconds(run) * math.exp(noise)) / (1 + hot)

    def reach(self, run: Run, position: float, version: int) -> None:
        if run.over or version != run.version:
            return
        assert isinstance(run, FaultyRun)
        self.arrive(run, position)
        self.calendar.at(self.now + self.faults.landing_seconds, self._land, run, self._keep(run), 0)
        if position >= self.scenario.truths[run.task].last_epoch:
            self.finish(run)
        else:
            self.news(run, Progressed(self.progress(run, None)))
            self.schedule(run)

    def _keep(self, run: FaultyRun) -> SimulatedCommit:
        """A snapshot of where the run is, on its machine's own disk."""
        run.snapshot = SimulatedCommit(run.position, run.best_epoch, run.number, run.machine.name)
        key = (run.machine.name, run.task)
        if key not in self.tiers or self.tiers[key].position < run.position:
            self.tiers[key] = run.snapshot
        return run.snapshot

    def _land(self, run: FaultyRun, snapshot: SimulatedCommit, number: int) -> None:
        """A snapshot comes into the store; again as commit `number`, if that was asked for and not answered."""
        if run.over or run.hung or snapshot.position <= run.committed:
            return
        if not self.faults.is_store_down(self.now):
            self._put(run, snapshot, number, may_lose_answer=True)
        elif snapshot is run.snapshot:  # a newer one takes its place
            self.happened["commits that waited for the store"] += 1
            self.calendar.at(self.now + PATIENCE_SECONDS / 4, self._land, run, snapshot, number)

    def _put(self, run: FaultyRun, mine: SimulatedCommit, asked: int, *, may_lose_answer: bool) -> None:
        """Put a snapshot as the next commit, or go on from a rival's that is as far."""
        number = asked or run.commit + 1
        while True:
            standing = self.store.put_commit(run.task, number, mine)
            self.witness.stored(run)
            if standing is mine:
                break
            self.happened["commits that lost their race"] += standing.writer != run.number
            run.commit, last = self.store.last(run.task)
            assert last is not None
            if last.position >= mine.position:
                self._follow(run, last)
                return
            number = run.commit + 1
        if may_lose_answer and not asked and self.chance.happens(self.faults.lost_answer):
            self.happened["lost answers"] += 1
            again = self.now + self.chance.between(1.0, PATIENCE_SECONDS)
            self.calendar.at(again, self._land, run, mine, number)
            return
        run.commit, run.committed = number, max(run.committed, mine.position)
        self.report(run)

    def _follow(self, run: FaultyRun, last: SimulatedCommit) -> None:
        """A rival's commit stands; where it is further than the run is by now, the run goes on there."""
        run.committed = max(run.committed, last.position)
        self.catch_up(run)
        if last.position > run.position:
            self.happened["jumps to a rival's commit"] += 1
            run.position, run.best_epoch, run.snapshot = last.position, last.best_epoch, None
            self.schedule(run)

    def stop(self, run: Run) -> None:
        """Commit and end, if it hears the order."""
        assert isinstance(run, FaultyRun)
        if run.over or run.hung or not self.reaches(run.owner, run.machine.name):
            self.happened["stops that were not heard"] += 1
            return
        if run.task in self.epochs:
            self.catch_up(run)
            if run.position > run.committed:
                snapshot = self._keep(run)
                if not self.faults.is_store_down(self.now):
                    self._put(run, snapshot, 0, may_lose_answer=False)
        self.fail(run, Failure.STOPPED)

    def finish(self, run: Run) -> None:
        assert isinstance(run, FaultyRun)
        if run.over or run.hung:
            return
        run.version, run.rate = run.version + 1, 0.0
        if self.faults.is_store_down(self.now):
            self.calendar.at(self.now + PATIENCE_SECONDS, self._give_up_on_store, run, self.finish)
            return
        before = self.store.results.get(run.task)
        standing = self.store.put_result(run.task, run.number)
        self.witness.stored(run)
        self.happened["results that stood already"] += before is not None and standing != run.number
        if before is None and self.chance.happens(self.faults.lost_answer):
            self.happened["lost answers"] += 1
            self.calendar.at(self.now + self.chance.between(1.0, PATIENCE_SECONDS), self.finish, run)
            return
        self.end(run)
        self.news(run, TaskEnded(Outcome(run.task, run.attempt)))

    def _give_up_on_store(self, run: FaultyRun, instead: object) -> None:
        """The end of patience; `instead` is done where the store is back."""
        if run.over:
            return
        if not self.faults.is_store_down(self.now):
            assert callable(instead)
            instead(run)
            return
        self.happened[Failure.STORE.value] += 1
        self.fail(run, Failure.STORE, "the store does not answer", transient=True)

    def lose(self, run: Run) -> None:
        super().lose(run)
        self.witness.lost(run)
