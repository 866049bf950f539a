"""One run on a fleet, begun and looked at from outside: its journal, its results. No test in here."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fleet.operator import Operator

Event = dict[str, Any]
REPEATED = ("model", "held_out", "selection", "labels")  # blobs that are the same wherever they were made
OVERRIDES = ("--recipe.epochs", "30", "--recipe.checkpoint_minutes", "0.05")  # folds of half a minute
_LOOK_SECONDS = 0.3


class FleetRun:
    """A run that `ray submit` began on the head. Its store lies on the head's disk unless another is given."""

    def __init__(self, operator: Operator, name: str, store: str | None = None) -> None:
        self.name, self._operator = name, operator
        self.store = store or f"head:///root/stores/{name}"
        self._command = ["ray", "submit", str(operator.cluster), "jobs/pipeline.py", "--", "photos"]
        self._command += ["--config", "foldfleet/configs/tiny.yaml", "--fleet.address", "auto", "--store", self.store]
        self._command += ["--run", "run", *OVERRIDES]
        self.words = " ".join(["--fleet.address auto", *OVERRIDES])
        self.process: subprocess.Popen[bytes]

    def begin(self, *more: str) -> FleetRun:
        """The command, in the background; `more` arguments for this time only."""
        self.process = self._operator.begin([*self._command, *more], f"{self.name}.log")
        return self

    def events(self) -> list[Event]:
        """The journal as far as it is written."""
        for path in self._journals():
            if path.exists():
                return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        return []

    def until(self, seen: Callable[[list[Event]], Any], what: str, seconds: float = 240.0) -> Any:
        """What `seen` finds in the journal, as soon as it finds something. AssertionError when the run ends before."""
        deadline = time.monotonic() + seconds
        while not (found := seen(self.events())):
            ended = self.process.poll()
            assert ended is None, f"{self.name} ended with {ended} before {what}:\n{self.said()}"
            assert time.monotonic() < deadline, f"{self.name}: not within {seconds:.0f} s: {what}\n{self.said()}"
            time.sleep(_LOOK_SECONDS)
        return found

    def until_training_on(self, machine: str, epochs: int = 2) -> str:
        """The id of a task that trains on `machine`, has committed, and is in the middle of its epochs."""
        task = self.until(lambda events: training_on(events, machine, epochs), f"a fold trains on {machine}")
        assert isinstance(task, str)
        return task

    def finish(self, seconds: float = 420.0) -> None:
        """Wait for the command to end well."""
        code = self.process.wait(seconds)
        assert code == 0, f"{self.name} ended with {code}:\n{self.said()}"

    def said(self) -> str:
        """The end of what the command printed."""
        return self._operator.said(f"{self.name}.log")[-4000:]

    def results(self) -> dict[str, dict[str, str]]:
        """Hashes of what must be the same bytes wherever it was made, by task id."""
        return results_in(self._operator.lab.home("head") / "stores" / self.name)

    def _journals(self) -> list[Path]:
        home = self._operator.lab.home("head")
        there = sorted(home.glob(f".cache/foldfleet/*{self.name}*/runs/run/events.jsonl"))
        return [home / "stores" / self.name / "runs/run/events.jsonl", *there]


def results_in(store: Path) -> dict[str, dict[str, str]]:
    """The same of a store in a folder that this machine sees."""
    records = [json.loads(path.read_text()) for path in sorted((store / "results").glob("*.json"))]
    found = {one["task"]: {name: blob for name, blob in one["blobs"].items() if name in REPEATED} for one in records}
    return {task: blobs for task, blobs in found.items() if blobs}


def training_on(events: Sequence[Event], machine: str, epochs: int) -> str | None:
    """A task at work on a machine, at least `epochs` in, with a commit, and not at its last epoch."""
    machines: dict[str, str] = {}
    for event in events:
        if event["event"] == "Start":
            machines[event["task"]] = event["machine"]
        elif event["event"] == "TaskEnded":
            machines.pop(event["outcome"]["task"], None)
    for event in reversed(events):
        if event["event"] == "Progressed" and machines.get((seen := event["progress"])["task"]) == machine:
            in_the_middle = epochs <= seen["epoch"] < seen["epochs"] - 1
            return str(seen["task"]) if in_the_middle and has_committed(events, seen["task"]) else None
    return None


def training_seconds(events: Sequence[Event]) -> dict[str, float]:
    """How long each machine had a training task, by the journal's clock."""
    began: dict[tuple[str, int], tuple[str, float]] = {}
    seconds: dict[str, float] = {}
    for event in events:
        if event["event"] == "Start":
            began[event["task"], event["attempt"]] = (event["machine"], event["at"])
        elif event["event"] == "TaskEnded":
            outcome = event["outcome"]
            machine, at = began.pop((outcome["task"], outcome["attempt"]))
            if outcome["task"].startswith(("teacher", "student")):
                seconds[machine] = seconds.get(machine, 0.0) + event["at"] - at
    return seconds


def has_committed(events: Sequence[Event], task: str) -> bool:
    """Whether a commit of a task has been told of."""
    told = (event["progress"] for event in events if event["event"] == "Progressed")
    return any(progress["task"] == task and progress["commit"] for progress in told)


def lost_steps(events: Sequence[Event], task: str) -> int:
    """Optimizer steps made more than once: the most by which one of a task's attempts began behind another."""
    furthest, lost, attempt = 0, 0, None
    for event in events:
        if event["event"] != "Progressed" or event["progress"]["task"] != task:
            continue
        seen = event["progress"]
        if seen["attempt"] != attempt:
            attempt, lost = seen["attempt"], max(lost, furthest - seen["step"])
        furthest = max(furthest, seen["step"])
    return lost
