"""Attempts to which everything happens that may: crashes, hangs, too little memory, late and doubled news. Pure."""

from __future__ import annotations

import math

from coordinator.events import Fact, Progressed, Start, TaskEnded
from coordinator.simulated_attempts import Listener, Run
from coordinator.simulated_commits import CommittingFleet, FaultyRun
from workers.tasks import Failure, TrainTask


class FaultyFleet(CommittingFleet):
    """What runs on machines, with all that goes wrong there."""

    def begin(self, order: Start, owner: Listener) -> None:
        if not self.reaches(owner, order.machine):
            self.happened["starts on a machine that was gone"] += 1
            return
        super().begin(order, owner)
        run = self.runs[id(owner), order.task, order.attempt]
        assert isinstance(run, FaultyRun)
        rivals = {other.owner is owner for other in self.runs.values() if other.task == run.task and other is not run}
        self.happened["attempts beside an orphan"] += True in rivals
        self.happened["attempts beside one of another coordinator"] += False in rivals
        self.witness.began(run)
        self._fate(run)

    def _fate(self, run: FaultyRun) -> None:
        """What will befall the attempt, if it is still there by then."""
        faults, chance = self.faults, self.chance
        whole = 3 * self.epoch_seconds(run) if run.task in self.epochs else self.scenario.short_seconds
        when = self.now + chance.between(0.0, whole / run.machine.speed)
        if faults.is_bad(run.machine.name, self.now):
            when = self.now + chance.between(1.0, 20.0)
            self.calendar.at(when, self._crash, run, Failure.CRASHED, f"{run.machine.name}: driver error")
        elif self._needed_gb(run) > (run.machine.memory_gb or math.inf):
            self.calendar.at(self.now + chance.between(1.0, 20.0), self._crash, run, Failure.OUT_OF_MEMORY, "no memory")
        elif chance.happens(faults.crash):
            self.calendar.at(when, self._crash, run, Failure.CRASHED, f"error {'xyz'[chance.whole(0, 2)]}")
        elif chance.happens(faults.hang):
            self.calendar.at(when, self._hang, run)
        elif run.task in self.epochs and chance.happens(faults.nan):
            self.calendar.at(when, self._crash, run, Failure.NAN, "the loss is not finite")

    def _needed_gb(self, run: Run) -> float:
        """What the attempt takes on its card: a part that stays, and one that grows with the images on it."""
        most = self.faults.memory_gb.get(run.task, 0.0)
        task = self.scenario.graph.tasks[run.task]
        if run.micro_batch is None or not isinstance(task, TrainTask):
            return most
        least, batch = self.faults.smallest_share, int(task.recipe["batch_size"])
        return most * (least + (1 - least) * (run.micro_batch - 1) / max(1, batch - 1))

    def _crash(self, run: FaultyRun, failure: Failure, what: str) -> None:
        if run.over or run.hung:
            return
        self.happened[failure.value] += 1
        self.lose(run)
        self.fail(run, failure, what)

    def _hang(self, run: FaultyRun) -> None:
        """No step and no word more; some go on after a long time."""
        if run.over:
            return
        self.happened["hung attempts"] += 1
        self.catch_up(run)
        run.hung, run.rate = True, 0.0
        run.version += 1
        if self.chance.happens(0.5):
            longest = self.scenario.rules.hang_seconds * 1.5
            self.calendar.at(self.now + self.chance.between(1.0, longest), self._wake, run)

    def _wake(self, run: FaultyRun) -> None:
        if run.over:
            return
        run.hung, run.since = False, self.now
        if run.task in self.epochs:
            self.schedule(run)
        else:
            self.finish(run)

    def news(self, run: Run, fact: Progressed | TaskEnded) -> None:
        """On its way to the coordinator: now, later, twice, or when the machine is back."""
        if not self.reaches(run.owner, run.machine.name):
            self.hold(run, fact)
            return
        doubled = self.chance.happens(self.faults.doubled)
        self.happened["doubled news"] += doubled
        for _ in range(1 + doubled):
            if self.chance.happens(self.faults.late):
                self.happened["late news"] += 1
                self.calendar.at(self.now + self.chance.between(0.0, self.faults.longest_delay), self.hear, run, fact)
            else:
                self.hear(run, fact)

    def hold(self, run: Run, fact: Fact) -> None:
        """News that cannot pass now."""

    def hear(self, run: Run, fact: Fact) -> None:
        """News arrive."""
        run.owner.tell(fact)
