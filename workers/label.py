"""One LabelTask: a teacher's soft labels for the rows it held out, audited row by row. And their use by a student.

A soft label is honest only when its teacher never saw the image: not the image itself, not a duplicate (the whole group
must lie in the folds held out), and not the parts it was pasted from (so must the groups of a composite's parents).
`audit_rows` is that rule, and is asked for every row before anything is kept. `mixed_targets` asks the other half when
a student mixes the labels in: every row it uses comes from a teacher that held out the image's fold and, with nested
labels, the student's own fold too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared_store.commits import read_result
from shared_store.folds_table import FoldRow, FoldTable, read_folds
from shared_store.records import Result
from shared_store.snapshot import read_manifest
from shared_store.store import Store
from shared_store.tables import SoftLabels, get_predictions, get_soft_labels, put_soft_labels
from workers.images import one_hot
from workers.metrics import softmax
from workers.tasks import LabelTask, TrainTask
from workers.work import Work

Floats = NDArray[np.float32]
_NAMED = 3  # offending rows that a message names


class LeakError(AssertionError):
    """A soft label whose teacher saw what it labels: our own bug, never to be trained on."""


@dataclass(frozen=True)
class Audit:
    """What was checked of one teacher's labels, after nothing was found."""

    rows: int
    composites: int
    groups: int
    parents: int


@dataclass(frozen=True)
class HeldOutLabels:
    """The labels of one label task, and the folds that their teacher held out."""

    labels: SoftLabels
    held_out: tuple[int, ...]


def make_labels(task: LabelTask, work: Work) -> Result:
    """Soft labels of every train row (composites too) in the folds that the task's teacher held out.

    Blobs `labels`; texts `audit` (a sentence), `held_out` (JSON list of folds), `teacher`; numbers `rows`,
    `composites`, `groups`, and `agreement`: the share of rows whose top class is the given label. Raises LeakError
    before anything is kept.
    """
    teacher = read_result(work.store, task.teacher)
    assert teacher is not None, f"{task.name} was started before its teacher {task.teacher} was done"
    predictions = get_predictions(work.store, teacher.blobs["held_out"])
    assert predictions.classes == task.classes, f"{task.teacher} has classes {predictions.classes}, not {task.classes}"
    table = read_folds(work.store, task.folds)
    _, rows, _ = read_manifest(work.store, task.snapshot)
    parents = {row.image_id: row.parents for row in rows}
    audit = audit_rows(predictions.image_ids, task.held_out, table, parents, task.teacher)
    wanted = table.ids("train", task.held_out)
    missing = sorted(set(wanted) - set(predictions.image_ids))
    assert not missing, f"{task.teacher} held out folds {task.held_out} and did not predict {missing[:_NAMED]}"
    probabilities = softmax(predictions.rows(wanted)).astype(np.float32)
    labels = SoftLabels(wanted, task.classes, probabilities, (task.teacher,) * len(wanted))
    agreement = np.mean(probabilities.argmax(axis=1) == one_hot(table.labels(wanted), task.classes).argmax(axis=1))
    return Result(
        work.task,
        work.spec,
        work.attempt,
        work.nonce,
        blobs={"labels": put_soft_labels(work.store, labels)},
        numbers={
            "rows": audit.rows,
            "composites": audit.composites,
            "groups": audit.groups,
            "agreement": float(agreement),
        },
        texts={
            "audit": _sentence(task, audit),
            "held_out": json.dumps(list(task.held_out)),
            "teacher": task.teacher,
        },
    )


def audit_rows(
    image_ids: Iterable[str],
    held_out: Sequence[int],
    table: Iterable[FoldRow],
    parents: Mapping[str, Sequence[str]],
    teacher: str,
) -> Audit:
    """Check every labelled image; LeakError names the first that `teacher` may have seen, and how.

    `held_out` are the folds that the teacher held out, `table` all rows of the fold table, `parents` the manifest's
    parts of each image (empty for a photo). What lies in no fold was trained on by nobody.
    """
    rows = {row.image_id: row for row in table if row.fold is not None}
    seen: dict[str, str] = {}  # group -> path of an image of it that the teacher trained on
    for row in rows.values():
        if row.fold not in held_out:
            seen.setdefault(row.group, row.path)
    labelled = list(image_ids)
    own = [rows[image_id] for image_id in labelled if image_id in rows]
    leaks = [f"{image_id} is in no fold" for image_id in labelled if image_id not in rows]
    for row in own:
        leaks += _leaks(row, held_out, [rows[parent] for parent in parents[row.image_id] if parent in rows], seen)
    if leaks:
        named = "; ".join(leaks[:_NAMED])
        raise LeakError(f"{teacher} held out folds {list(held_out)} but {len(leaks)} findings: {named}")
    return Audit(
        rows=len(own),
        composites=sum(bool(parents[row.image_id]) for row in own),
        groups=len({row.group for row in own}),
        parents=len({parent for row in own for parent in parents[row.image_id]}),
    )


def _leaks(row: FoldRow, held_out: Sequence[int], made_of: Sequence[FoldRow], seen: Mapping[str, str]) -> list[str]:
    """Every way in which a teacher saw `row`; `seen` maps each group it trained on to one image of it."""
    found = []
    if row.fold not in held_out:
        found.append(f"{row.path} is in fold {row.fold}")
    elif row.group in seen:
        found.append(f"{row.path} is of the group of {seen[row.group]}, which was trained on")
    found += [
        f"{row.path} was made from {parent.path}, of the group of {seen[parent.group]}, which was trained on"
        for parent in made_of
        if parent.group in seen
    ]
    return found


def read_labels(store: Store, label_task: str) -> HeldOutLabels:
    """The labels that a finished label task left."""
    result = read_result(store, label_task)
    assert result is not None, f"the labels {label_task} were asked for before they stood"
    return HeldOutLabels(get_soft_labels(store, result.blobs["labels"]), tuple(json.loads(result.texts["held_out"])))


def training_targets(task: TrainTask, store: Store, table: FoldTable, image_ids: Sequence[str]) -> Floats:
    """What a model learns `image_ids` as, float32 [n, classes]: one-hot, for a student mixed with its soft labels."""
    hard = one_hot(table.labels(image_ids), task.classes)
    if not task.labels:
        return hard
    sources = [read_labels(store, label_task) for label_task in task.labels]
    for label_task, source in zip(task.labels, sources, strict=True):
        found = source.labels.classes
        assert found == task.classes, f"{task.name}: {label_task} has classes {found}, not {task.classes}"
    folds = {row.image_id: row.fold for row in table if row.fold is not None}
    return mixed_targets(image_ids, hard, folds, sources, student_held_out=task.held_out, weight=task.label_weight)


def mixed_targets(
    image_ids: Sequence[str],
    hard: Floats,
    folds: Mapping[str, int],
    sources: Sequence[HeldOutLabels],
    *,
    student_held_out: Sequence[int],
    weight: float,
) -> Floats:
    """(1 - weight) * hard + weight * soft, float32 [n, classes]; every image must have exactly one soft label.

    `folds` is the fold of each training image. LeakError when a teacher did not hold out the fold of an image it labels
    for this student, when an image is of a fold that the student holds out, or when the labels are nested (a teacher
    held out more than one fold) and a teacher did not hold out the student's folds as well.
    """
    nested = any(len(source.held_out) > 1 for source in sources)
    wanted = set(image_ids)
    soft: dict[str, Floats] = {}
    for source in sources:
        if nested and not set(student_held_out) <= set(source.held_out):
            raise LeakError(f"nested labels for folds {list(student_held_out)} of a teacher of {list(source.held_out)}")
        labels = source.labels
        for image_id, row, teacher in zip(labels.image_ids, labels.probabilities, labels.teachers, strict=True):
            if image_id not in wanted:
                continue  # of a fold that the student holds out, or a composite that it does not learn from
            fold = folds[image_id]
            if fold not in source.held_out or fold in student_held_out:
                raise LeakError(
                    f"{image_id} of fold {fold} is labelled by {teacher}, which held out {list(source.held_out)}, "
                    f"for a student that holds out {list(student_held_out)}"
                )
            if image_id in soft:
                raise LeakError(f"{image_id} has two soft labels, the second from {teacher}")
            soft[image_id] = row
    missing = [image_id for image_id in image_ids if image_id not in soft]
    assert not missing, f"{len(missing)} images have no soft label, first {missing[:_NAMED]}"
    rows = np.stack([soft[image_id] for image_id in image_ids])
    return ((1 - weight) * hard + weight * rows).astype(np.float32)


def _sentence(task: LabelTask, audit: Audit) -> str:
    folds = " and ".join(str(fold) for fold in task.held_out)
    made_of = f", none of the {audit.parents} photos its composites were made of" if audit.composites else ""
    return (
        f"{audit.rows} labels ({audit.composites} of composites) in {audit.groups} groups from {task.teacher}, "
        f"which held out fold {folds}: none of these images, no image of their groups{made_of} "
        "was in its training folds."
    )
