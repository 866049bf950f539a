"""One run on a fleet, begun and looked at from outside: its journal, its results. No test in here."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.journal import Event, training_on
from fleet.operator import Operator

from shared_store.records import sha256

REPEATED = ("model", "held_out", "selection", "labels")  # blobs that are the same wherever they were made
Results = dict[str, dict[str, str]]  # hashes of those, by task id and name
_LOOK_SECONDS = 0.3


@dataclass(frozen=True)
class Size:
    """How long a run is. Teachers, labels and students, by the test recipe."""

    folds: int
    epochs: int
    interval_seconds: float  # between checkpoints

    @property
    def words(self) -> list[str]:
        minutes = f"{self.interval_seconds / 60:.4f}"
        epochs = ["--recipe.epochs", str(self.epochs), "--recipe.checkpoint_minutes", minutes]
        return [*epochs, "--folds.count", str(self.folds)]


SHORT = Size(3, 30, 1.5)
MIDDLE = Size(4, 75, 2.0)  # every machine of a fleet has a fold for a while


class FleetRun:
    """A run that `ray submit` begins on the head. Its store lies on the head's disk unless another is given."""

    def __init__(
        self, operator: Operator, name: str, size: Size = SHORT, job: str = "student", store: str | None = None
    ) -> None:
        self.name, self.size, self._operator = name, size, operator
        self.store = store or f"head:///root/stores/{name}"
        self.words = ["--config", "foldfleet/configs/tiny.yaml", "--store", self.store, "--run", "run", *size.words]
        self._command = ["ray", "submit", str(operator.cluster), f"jobs/{job}.py", "--", "photos"]
        self._command += ["--fleet.address", "auto", *self.words]
        self.process: subprocess.Popen[bytes]
        self._begun: list[subprocess.Popen[bytes]] = []

    def begin(self, *more: str) -> FleetRun:
        """The command, in the background; `more` arguments for this time only."""
        return self._has_begun(self._operator.begin([*self._command, *more], f"{self.name}.log"))

    def begin_on(self, host: str, job: str = "student") -> FleetRun:
        """The command as somebody types it at a machine of the fleet."""
        words = ["foldfleet", job, "photos", "--fleet.address", f"{self._operator.lab.address('head')}:6379"]
        return self._has_begun(self._operator.begin_on(host, " ".join([*words, *self.words]), f"{self.name}.log"))

    def submit(self, job: str) -> FleetRun:
        """The same by `ray job submit` on the head, from the project's folder there."""
        words = " ".join(["--fleet.address auto", *self.words]).replace("foldfleet/configs", "configs")
        submits = "RAY_AUTH_MODE=token ray job submit --address http://127.0.0.1:8265 --working-dir foldfleet --"
        command = f"{submits} python jobs/{job}.py /root/photos {words}"
        return self._has_begun(self._operator.begin_on("head", command, f"{self.name}.log"))

    def _has_begun(self, process: subprocess.Popen[bytes]) -> FleetRun:
        self.process = process
        self._begun.append(process)
        return self

    def forget(self) -> None:
        """End what may still run of its commands."""
        for process in self._begun:
            self._operator.forget(process)

    def events(self) -> list[Event]:
        """The journal as far as it is written."""
        for path in self._journals():
            if path.exists():
                return events_in(path)
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

    def results(self, host: str = "head") -> Results:
        """Hashes of what must be the same bytes wherever it was made, from a store on the disk of `host`."""
        return results_in(self.folder(host))

    def folder(self, host: str = "head") -> Path:
        """Its store, on the disk of `host`."""
        return self._operator.lab.home(host) / "stores" / self.name

    def _journals(self) -> list[Path]:
        homes = [self._operator.lab.home(host) for host in self._operator.lab.hosts]
        caches = [path for home in homes for path in home.glob(f".cache/foldfleet/*{self.name}*/runs/run/events.jsonl")]
        return [self.folder() / "runs/run/events.jsonl", *caches]


def events_in(journal: Path) -> list[Event]:
    """Its whole lines."""
    return [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]


def results_in(store: Path) -> Results:
    """The same of a store in a folder that this machine sees."""
    records = [json.loads(path.read_text()) for path in sorted((store / "results").glob("*.json"))]
    assert len(records) == len({record["task"] for record in records}), f"several results of one task in {store}"
    found = {one["task"]: {name: blob for name, blob in one["blobs"].items() if name in REPEATED} for one in records}
    return {task: blobs for task, blobs in found.items() if blobs}


def forked_chains(store: Path) -> list[str]:
    """Commits that do not name the one before them, or go back behind it: none, or two attempts wrote past another."""
    wrong = []
    for folder in sorted((store / "commits").iterdir()):
        parent, reached = None, (0, 0)
        for number in range(1, len(list(folder.glob("*.json"))) + 1):
            data = (folder / f"{number}.json").read_bytes()
            commit = json.loads(data)
            if commit["parent"] != parent or (commit["epoch"], commit["step"]) < reached:
                wrong.append(f"{folder.name}/{number}")
            parent, reached = sha256(data), (commit["epoch"], commit["step"])
    return wrong
