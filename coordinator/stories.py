"""A task's story from the journal of its run: attempts, where and when, why each ended, commits, moves. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from coordinator.events import (
    Event,
    GiveUp,
    Kill,
    MachineCut,
    MachineLeft,
    Migrate,
    Progressed,
    ResultFound,
    RunBegan,
    Start,
    Stop,
    TaskEnded,
)
from coordinator.machine_lines import duration
from shared_store.errors import UserError
from workers.tasks import Failure, Outcome, Progress, Task


def named_task(word: str, tasks: Mapping[str, Task]) -> str:
    """The id of the task that a person means by its name or id. UserError suggests the nearest."""
    names = {task.name: name for name, task in tasks.items()}
    if word in tasks:
        return word
    if word in names:
        return names[word]
    near = difflib.get_close_matches(word, [*names, *tasks], n=2, cutoff=0.5)
    mend = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(list(names)[:8])} ..."
    raise UserError(f"the run has no task {word}", where="TASK", mend=mend)


@dataclass
class Story:
    """Lines for people, each with its time. Seconds of the journal are told as a time of day where that was noted."""

    task: str
    lines: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    _began: datetime | None = None
    _began_at: float = 0.0
    _attempt: Start | None = None
    _started: float = 0.0
    _commits: list[tuple[float, Progress]] = field(default_factory=list)  # that are not told yet
    _furthest: Progress | None = None

    def take(self, at: float, event: Event) -> None:
        match event:
            case RunBegan(tasks, began):
                self._cut_off()
                self._began, self._began_at = datetime.fromisoformat(began) if began else None, at
                self._furthest = None
                if self.task in tasks:
                    self._tell(at, "a command drives the run")
            case ResultFound(self.task):
                self._tell(at, "its result stood in the store: not run again")
            case Start(self.task):
                self._start(at, event)
            case Progressed(progress) if progress.task == self.task and self._runs(progress.attempt):
                self._progressed(at, progress)
            case Migrate(self.task, attempt, machine) if self._runs(attempt):
                self._tell(at, f"asked to commit and move to {machine}")
            case Stop(self.task, attempt, why) if self._runs(attempt):
                self._tell(at, f"asked to commit and stop{f': {why}' if why else ''}")
            case Kill(self.task, attempt, why) if self._runs(attempt):
                self._end(at, Outcome(self.task, attempt, Failure.HUNG, f"its process was ended: {why}"))
            case TaskEnded(outcome) if outcome.task == self.task and self._runs(outcome.attempt):
                self._end(at, outcome)
            case MachineCut(machine, why) | MachineLeft(machine, why) if self._is_on(machine):
                how = "was lost, out of reach" if isinstance(event, MachineCut) else "left"
                self._end(at, Outcome(self.task, 0, Failure.LOST, f"{machine} {how}{f': {why}' if why else ''}"))
            case GiveUp(self.task, why):
                self._tell(at, f"given up. {why}")

    def told(self) -> list[str]:
        """All lines; a task that the journal leaves at work says so."""
        if self._attempt is not None:
            self._tell_commits()
            known = self._furthest
            how_far = f", in epoch {known.epoch + 1} of {known.epochs}" if known is not None and known.epochs else ""
            self.lines.append(f"  it was at work on {self._attempt.machine}{how_far} when the journal ends")
        return self.lines

    def _start(self, at: float, order: Start) -> None:
        fewer = f", {order.micro_batch} images at once" if order.micro_batch is not None else ""
        self._tell(at, f"attempt {order.attempt} starts on {order.machine}, slot {order.slot}{fewer}")
        self._attempt, self._started = order, at

    def _progressed(self, at: float, progress: Progress) -> None:
        if progress.note:
            self._tell(at, progress.note)
        if progress.commit is not None:
            self._commits.append((at, progress))
        if not progress.says_nothing:
            self._furthest = progress

    def _end(self, at: float, outcome: Outcome) -> None:
        assert self._attempt is not None
        how = "done" if outcome.failure is None else str(outcome.failure)
        if outcome.failure is Failure.STOPPED:
            how = "stopped, with its last step committed" if not outcome.transient else "stopped"
        said = f": {outcome.what}" if outcome.what else ""
        where = f" ({outcome.where})" if outcome.where else ""
        took = f" after {duration(at - self._started)} on {self._attempt.machine}"
        self._tell(at, f"attempt {self._attempt.attempt} ends{took}: {how}{said}{where}")
        if outcome.mend:
            self.lines.append(f"  mend:  {outcome.mend}")
        self.tracebacks += [outcome.traceback] if outcome.traceback else []
        self._attempt = None

    def _cut_off(self) -> None:
        """Another command begins: what ran before it ended with its driver."""
        if self._attempt is not None:
            self._tell_commits()
            self.lines.append(f"  cut off on {self._attempt.machine} with the process that drove the run")
            self._attempt = None

    def _runs(self, attempt: int) -> bool:
        return self._attempt is not None and self._attempt.attempt == attempt

    def _is_on(self, machine: str) -> bool:
        return self._attempt is not None and self._attempt.machine == machine

    def _tell(self, at: float, text: str) -> None:
        self._tell_commits()
        self.lines.append(f"{self._time(at)}  {text}")

    def _tell_commits(self) -> None:
        """Commits in a row are one line."""
        if not self._commits:
            return
        (first_at, first), (at, last) = self._commits[0], self._commits[-1]
        which = f"commit {last.commit}" if first is last else f"commits {first.commit} to {last.commit}"
        since = f", the first at {self._time(first_at).strip()}" if first is not last else ""
        score = "" if last.mean_ap is None else f", mAP {last.mean_ap:.3f}"
        self._commits = []
        self.lines.append(f"{self._time(at)}  {which}: epoch {last.epoch} of {last.epochs}{score}{since}")

    def _time(self, at: float) -> str:
        if self._began is None:
            return f"{at:9.0f} s"
        return f"{(self._began + timedelta(seconds=at - self._began_at)).astimezone():%d %b %H:%M:%S}"


def story_of(task: str, events: Iterable[tuple[float, Event]]) -> Story:
    """The story of a task's id, over all commands that drove the run."""
    story = Story(task)
    for at, event in events:
        story.take(at, event)
    return story
