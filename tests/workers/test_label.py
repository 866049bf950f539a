"""Out-of-fold labels: only honest rows are kept, and a student mixes only what its teachers never saw."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import RecordingReporter, digit_rows

from shared_store.cache import Cache
from shared_store.commits import put_result
from shared_store.folds_table import FoldRow, FoldTable
from shared_store.records import Result
from shared_store.snapshot import ImageRow, write_snapshot
from shared_store.store import Store
from shared_store.tables import Predictions, SoftLabels, get_soft_labels, put_predictions
from workers import label
from workers.label import HeldOutLabels, LeakError, audit_rows, make_labels, mixed_targets, training_targets
from workers.metrics import softmax
from workers.tasks import LabelTask, TrainTask, spec_hash, task_id
from workers.work import Work

CLASSES = ("digit_0", "digit_1", "digit_2")
TEACHER = "teacher-fold0-0123456789abcdef"


def fold_row(image_id: str, fold: int | None, group: str | None = None, part: str = "train") -> FoldRow:
    return FoldRow(image_id, f"{image_id}.jpg", "digit_0", group or image_id, part, fold)


def audit(ids: list[str], rows: list[FoldRow], parents: dict[str, tuple[str, ...]] | None = None) -> label.Audit:
    made_of = dict.fromkeys([row.image_id for row in rows], ()) | (parents or {})
    return audit_rows(ids, (0,), rows, made_of, TEACHER)


def test_rows_of_the_fold_held_out_pass_and_are_counted() -> None:
    rows = [fold_row("a", 0, "g"), fold_row("b", 0, "g"), fold_row("c", 1), fold_row("mixed", 0, "g")]
    assert audit(["a", "b", "mixed"], rows, {"mixed": ("a", "b")}) == label.Audit(3, 1, 1, 2)


def test_an_image_that_the_teacher_trained_on_is_named() -> None:
    with pytest.raises(LeakError, match=r"teacher-fold0.*c\.jpg is in fold 1"):
        audit(["a", "c"], [fold_row("a", 0), fold_row("c", 1)])


def test_an_image_of_no_fold_is_refused() -> None:
    rows = [fold_row("a", 0), fold_row("chosen", None, part="selection")]
    with pytest.raises(LeakError, match="chosen is in no fold; unknown is in no fold"):
        audit(["a", "chosen", "unknown"], rows)


def test_a_duplicate_that_the_teacher_trained_on_is_a_leak() -> None:
    rows = [fold_row("a", 0, "same"), fold_row("twin", 1, "same")]
    with pytest.raises(LeakError, match=r"a\.jpg is of the group of twin\.jpg"):
        audit(["a"], rows)


def test_a_parent_or_its_duplicate_that_the_teacher_trained_on_is_a_leak() -> None:
    rows = [fold_row("mixed", 0), fold_row("part", 0, "g"), fold_row("twin", 2, "g"), fold_row("other", 1)]
    with pytest.raises(LeakError, match=r"mixed\.jpg was made from part\.jpg, of the group of twin\.jpg"):
        audit(["mixed"], rows, {"mixed": ("part",)})
    with pytest.raises(LeakError, match=r"mixed\.jpg was made from other\.jpg"):
        audit(["mixed"], rows, {"mixed": ("other",)})


def test_a_parent_that_was_dropped_from_training_is_no_leak() -> None:
    assert audit(["mixed"], [fold_row("mixed", 0)], {"mixed": ("dropped",)}).parents == 1


@given(
    places=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=12),
    picked=st.sets(st.integers(0, 11)),
    made_of=st.dictionaries(st.integers(0, 11), st.sets(st.integers(0, 11), max_size=2), max_size=3),
    held_out=st.sampled_from([(0,), (1,), (0, 2)]),
)
def test_the_audit_passes_exactly_what_no_teacher_saw(
    places: list[tuple[int, int]], picked: set[int], made_of: dict[int, set[int]], held_out: tuple[int, ...]
) -> None:
    rows = [fold_row(str(i), fold, f"group{group}") for i, (fold, group) in enumerate(places)]
    names = {row.image_id for row in rows}
    ids = sorted(names & {str(i) for i in picked})
    parents = {name: tuple(str(part) for part in made_of.get(int(name), ())) for name in names}
    trained = {row.group for row in rows if row.fold not in held_out}
    group = {row.image_id: row.group for row in rows}
    touched = {group[name] for i in ids for name in (i, *parents[i]) if name in group}
    if touched & trained:
        with pytest.raises(LeakError):
            audit_rows(ids, held_out, rows, parents, TEACHER)
    else:
        assert audit_rows(ids, held_out, rows, parents, TEACHER).rows == len(ids)


@dataclass
class Case:
    """A snapshot of digits in two folds with one composite, a teacher's result, and the task that labels fold 0."""

    work: Work
    task: LabelTask
    table: FoldTable
    logits: dict[str, list[float]]

    def teach(self, image_ids: list[str]) -> None:
        """Let the teacher have predicted `image_ids`."""
        values = np.array([self.logits[image_id] for image_id in image_ids], dtype=np.float32)
        digest = put_predictions(self.work.store, Predictions(tuple(image_ids), CLASSES, values))
        put_result(self.work.store, Result(TEACHER, "spec", 1, "nonce", blobs={"held_out": digest}))


@pytest.fixture
def case(store: Store, cache: Cache) -> Case:
    photos, kept = digit_rows(per_class=4, classes=3)
    folds = {row.image_id: place % 2 for place, row in enumerate(photos)}
    first = [row for row in photos if folds[row.image_id] == 0]
    composite = replace(first[0], kind="composite", parents=(first[1].image_id,), group=first[1].group)
    rows: list[ImageRow] = [composite if row is first[0] else row for row in photos]
    record = write_snapshot(store, rows, kept.__getitem__)
    table = FoldTable(
        FoldRow(row.image_id, row.path, row.label, row.group, "train", folds[row.image_id]) for row in rows
    )
    task = LabelTask("label/fold0", record.snapshot_id, store.put_blob(table.to_csv()), CLASSES, TEACHER, (0,))
    random = np.random.default_rng(0)
    logits = {row.image_id: list(random.normal(size=3)) for row in rows}
    work = Work(task_id(task), spec_hash(task), 1, "nonce", store, cache, RecordingReporter())
    return Case(work, task, table, logits)


def test_labels_are_the_teachers_softmax_of_every_row_held_out(case: Case) -> None:
    wanted = case.table.ids("train", (0,))
    case.teach(sorted(wanted))
    result = make_labels(case.task, case.work)
    labels = get_soft_labels(case.work.store, result.blobs["labels"])
    assert labels.image_ids == wanted
    assert labels.classes == CLASSES
    assert set(labels.teachers) == {TEACHER}
    np.testing.assert_allclose(labels.probabilities, softmax([case.logits[image_id] for image_id in wanted]), atol=1e-6)
    right = labels.probabilities.argmax(axis=1) == [CLASSES.index(name) for name in case.table.labels(wanted)]
    assert result.numbers == {"rows": 6, "composites": 1, "groups": 5, "agreement": right.mean()}
    assert json.loads(result.texts["held_out"]) == [0]
    assert result.texts["audit"].startswith("6 labels (1 of composites) in 5 groups from teacher-fold0")
    assert (result.task, result.spec) == (task_id(case.task), spec_hash(case.task))


def test_the_same_teacher_gives_the_same_bytes(case: Case) -> None:
    case.teach(list(case.table.ids("train", (0,))))
    assert make_labels(case.task, case.work) == make_labels(case.task, case.work)


def test_a_teacher_that_predicted_its_own_training_images_labels_nothing(case: Case) -> None:
    case.teach(list(case.table.ids("train")))
    with pytest.raises(LeakError, match="is in fold 1"):
        make_labels(case.task, case.work)


def test_a_teacher_that_left_out_a_row_is_refused(case: Case) -> None:
    wanted = case.table.ids("train", (0,))
    case.teach(list(wanted[1:]))
    with pytest.raises(AssertionError, match=f"did not predict.*{wanted[0]}"):
        make_labels(case.task, case.work)


def test_a_student_learns_the_mixture_of_the_labels_that_were_made(case: Case) -> None:
    wanted = case.table.ids("train", (0,))
    case.teach(list(wanted))
    put_result(case.work.store, make_labels(case.task, case.work))
    student = TrainTask(
        "student/fold1", case.task.snapshot, case.task.folds, CLASSES, (1,), {}, True, (task_id(case.task),), 0.4
    )
    targets = training_targets(student, case.work.store, case.table, wanted)
    soft = softmax([case.logits[image_id] for image_id in wanted])
    hard = np.eye(3)[[CLASSES.index(name) for name in case.table.labels(wanted)]]
    np.testing.assert_allclose(targets, 0.6 * hard + 0.4 * soft, atol=1e-6)
    assert targets.dtype == np.float32
    teacher = replace(student, labels=())
    np.testing.assert_array_equal(training_targets(teacher, case.work.store, case.table, wanted), hard)


def source(rows: dict[str, tuple[float, float]], held_out: tuple[int, ...]) -> HeldOutLabels:
    values = np.array(list(rows.values()), dtype=np.float32)
    return HeldOutLabels(SoftLabels(tuple(rows), ("x", "y"), values, (TEACHER,) * len(rows)), held_out)


FOLDS = {"a": 0, "b": 1, "c": 2}
HARD = np.array([[1, 0], [0, 1]], dtype=np.float32)


def mixed(*sources: HeldOutLabels, ids: tuple[str, ...] = ("a", "b"), held_out: tuple[int, ...] = (2,)) -> np.ndarray:
    return mixed_targets(ids, HARD, FOLDS, sources, student_held_out=held_out, weight=0.4)


def test_each_image_takes_the_label_of_the_teacher_of_its_fold() -> None:
    targets = mixed(source({"b": (0.5, 0.5)}, (1,)), source({"a": (0.75, 0.25)}, (0,)))
    np.testing.assert_allclose(targets, [[0.9, 0.1], [0.2, 0.8]], atol=1e-6)


def test_a_label_from_a_teacher_that_trained_on_the_image_is_a_leak() -> None:
    with pytest.raises(LeakError, match="a of fold 0 is labelled by teacher-fold0"):
        mixed(source({"a": (0.5, 0.5), "b": (0.5, 0.5)}, (1,)))


def test_a_student_that_trains_on_its_own_fold_is_a_leak() -> None:
    with pytest.raises(LeakError, match=r"for a student that holds out \[0\]"):
        mixed(source({"a": (0.5, 0.5)}, (0,)), source({"b": (0.5, 0.5)}, (1,)), held_out=(0,))


def test_nested_labels_are_used_for_the_other_fold_only() -> None:
    first = source({"a": (0.75, 0.25), "c": (0.5, 0.5)}, (0, 2))
    second = source({"b": (0.5, 0.5), "c": (0.1, 0.9)}, (1, 2))
    np.testing.assert_allclose(mixed(first, second), [[0.9, 0.1], [0.2, 0.8]], atol=1e-6)


def test_nested_labels_of_a_teacher_that_saw_the_students_fold_are_a_leak() -> None:
    with pytest.raises(LeakError, match="nested labels for folds"):
        mixed(source({"a": (0.5, 0.5), "b": (0.5, 0.5)}, (0, 1)))


def test_an_image_without_a_label_or_with_two_is_refused() -> None:
    with pytest.raises(AssertionError, match="1 images have no soft label, first \\['b'\\]"):
        mixed(source({"a": (0.5, 0.5)}, (0,)))
    with pytest.raises(LeakError, match="a has two soft labels"):
        mixed(source({"a": (0.5, 0.5)}, (0,)), source({"b": (0.5, 0.5)}, (1,)), source({"a": (0.9, 0.1)}, (0,)))
