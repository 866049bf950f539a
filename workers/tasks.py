"""The vocabulary between coordinator and workers: task payloads, progress, outcomes.

Standard library only. A task's id is made of its name and the hash of its whole payload, in which
inputs are named by *their* ids. So one id stands for one piece of work with all that went into it:
finished work is recognised by it, and a changed recipe is another task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from shared_store.layout import slug
from shared_store.records import canonical_json, sha256


@dataclass(frozen=True)
class TrainTask:
    """Train one model on the folds it does not hold out, then predict held-out and selection images.

    A teacher has no `labels`. A student names the label tasks whose rows it mixes into its targets
    with `label_weight`, and may learn from composites.
    """

    kind: ClassVar[str] = "train"
    name: str  # "teacher/fold0", "student/fold3", "teacher/fold1-4" (nested)
    snapshot: str  # snapshot id
    folds: str  # sha256 of the fold table's blob (CSV)
    classes: tuple[str, ...]
    held_out: tuple[int, ...]  # folds this model never sees
    recipe: Mapping[str, Any]  # workers.recipe.Recipe as JSON values
    composites: bool = False
    labels: tuple[str, ...] = ()  # ids of label tasks
    label_weight: float = 0.0  # weight of the soft label against the one-hot one
    weights_sha256: str = ""  # of the file that the recipe names for pretrained weights; its path counts no more then

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.labels


@dataclass(frozen=True)
class LabelTask:
    """Soft labels for the rows that one teacher held out, audited row by row."""

    kind: ClassVar[str] = "label"
    name: str  # "label/fold0"
    snapshot: str
    folds: str
    classes: tuple[str, ...]
    teacher: str  # id of the teacher's task
    held_out: tuple[int, ...]  # the folds that the teacher held out

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.teacher,)


@dataclass(frozen=True)
class SearchTask:
    """Choose the best small ensemble of `members` on the selection part. Runs on the driver, by Tune."""

    kind: ClassVar[str] = "search"
    name: str  # "search/ensemble"
    folds: str
    classes: tuple[str, ...]
    members: tuple[str, ...]  # ids of train tasks; teachers first, then students
    ensemble: Mapping[str, Any]  # coordinator.config.EnsembleSection as JSON values

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.members


@dataclass(frozen=True)
class BundleTask:
    """Export the winner of a search as a predictor that needs no store."""

    kind: ClassVar[str] = "bundle"
    name: str  # "bundle/winner"
    search: str  # id of the search task
    members: tuple[Mapping[str, Any], ...]  # every member's TrainTask as JSON (with its id under "id")
    classes: tuple[str, ...]
    longest_side: int  # to which the run shrank its photos, in pixels: the predictor does the same

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.search,)


@dataclass(frozen=True)
class PredictTask:
    """Predict the test part with the exported winner."""

    kind: ClassVar[str] = "predict"
    name: str  # "predict/test"
    bundle: str  # id of the bundle task
    snapshot: str
    folds: str
    classes: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.bundle,)


Task = TrainTask | LabelTask | SearchTask | BundleTask | PredictTask
_KINDS: dict[str, type[Task]] = {t.kind: t for t in (TrainTask, LabelTask, SearchTask, BundleTask, PredictTask)}
PAYLOAD_VERSION = 1  # raise it when the same payload would come to mean other work
UNCOUNTED = frozenset({"checkpoint_minutes", "checkpointing"})  # fields of a recipe that do not change the result


def to_json(task: Task) -> dict[str, Any]:
    """A task as JSON values, with its kind; `from_json` is the way back."""
    fields = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    return {"kind": task.kind, "version": PAYLOAD_VERSION, **fields}


def from_json(value: Mapping[str, Any]) -> Task:
    fields = dict(value)
    kind, version = fields.pop("kind"), fields.pop("version")
    if version != PAYLOAD_VERSION:
        raise ValueError(f"a task payload of version {version}; this foldfleet reads {PAYLOAD_VERSION}")
    build: Callable[..., Task] = _KINDS[kind]
    return build(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})


def spec_hash(task: Task) -> str:
    """sha256 of everything that decides the task's result: not how often it commits, or where its weights lie."""
    value = to_json(task)
    if isinstance(task, TrainTask):
        by_content = task.weights_sha256 and not task.recipe["weights"].startswith("package:")
        uncounted = UNCOUNTED | {"weights"} if by_content else UNCOUNTED
        value["recipe"] = {name: v for name, v in task.recipe.items() if name not in uncounted}
    return sha256(canonical_json(value))


def task_id(task: Task) -> str:
    """`teacher-fold0-1f3a9c0e5d7b2468`: readable, unique per payload, one part of a key."""
    return f"{slug(task.name)}-{spec_hash(task)[:16]}"


@dataclass(frozen=True)
class Progress:
    """One throttled report from a running task. Unknown numbers are None."""

    task: str
    attempt: int
    epoch: int = 0  # epochs finished
    epochs: int = 0
    step: int = 0  # optimizer steps finished, over all epochs
    steps: int = 0
    loss: float | None = None
    mean_ap: float | None = None  # of the last finished epoch
    images_per_second: float | None = None
    seconds_left: float | None = None
    commit: int | None = None  # number of the newest commit, when this report follows one
    note: str = ""  # a sentence for people, e.g. "resumed at epoch 2, step 31"
    best_epoch: int | None = None  # the finished epoch with the best validation so far, counted from 1
    gpu_memory_gb: float | None = None  # in use on the slot's card, by whomever
    temperature_celsius: float | None = None  # of that card
    card: int | None = None  # which one of its machine, as the driver counts

    @property
    def says_nothing(self) -> bool:
        """A sign of life alone: the attempt works, and nothing is known of how far it is."""
        return replace(self, gpu_memory_gb=None, temperature_celsius=None, card=None) == Progress(
            self.task, self.attempt
        )


class Failure(StrEnum):
    """How a task can end other than done."""

    STOPPED = "stopped"  # asked to stop; its last step is committed
    LOST = "lost"  # its machine or process is gone
    PREEMPTED = "preempted"  # its machine was taken back
    HUNG = "hung"  # no sign of life; its process was ended
    OUT_OF_MEMORY = "out of memory"
    NAN = "nan"  # the loss is not a finite number
    BAD_INPUT = "bad input"  # the person can mend it; trying again cannot
    STORE = "store"  # the store is full, gone or not writable
    CRASHED = "crashed"  # anything else


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `failure` is None when the result stands in the store."""

    task: str
    attempt: int
    failure: Failure | None = None
    what: str = ""
    where: str = ""
    mend: str = ""
    traceback: str = ""
    seconds: float = 0.0
    transient: bool = False  # the store was down or full, which may pass


@dataclass(frozen=True)
class Probed:
    """What a probe found of one slot. Unknown numbers are None; `what` says what went wrong."""

    passed: bool
    what: str = ""
    system: str = ""  # "linux", "windows", "darwin"
    labels: tuple[str, ...] = ()  # that the machine's owner gave it
    memory_gb: float | None = None  # of the slot's share of its card, or of the machine's memory
    speed: float | None = None  # of training, relative to a constant of `workers.probe`
    bits: int | None = None  # in which `precision: auto` trains there: 16 or 32


class Reporter(Protocol):
    """What a running task may say and ask; given to it, never global."""

    def progress(self, progress: Progress) -> None: ...

    def stop_requested(self) -> bool:
        """True once somebody asked the task to commit and stop."""
