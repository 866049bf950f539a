"""The report's part on data: photos by class and fold, what was left out, labels with their audit, doubts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from coordinator.known import Known
from coordinator.page import Html, bullets, folded, joined, section, table, tag
from workers.tasks import LabelTask

_LISTED, _FEW_AUDITS, _MANY_FOLDS = 20, 10, 12
_OPTIMISTIC = (
    "Labels are out-of-fold: no label was given by a teacher that saw the image. But the other teachers trained on a "
    "student's own validation fold and labelled its training photos, so students' held-out scores are mildly "
    "optimistic. Ensembles are compared on the selection photos, which nobody saw; `distill.labels: nested` mends the "
    "rest."
)


def soft_labels(known: Known) -> Html:
    """Nothing before the first teacher labelled."""
    audits = [result.texts["audit"] for _, _, result in known.done(LabelTask)]
    if not audits:
        return Html("")
    distill = known.experiment.distill
    told = (
        f"Students learn {1 - distill.weight:.0%} from the given label and {distill.weight:.0%} from a teacher's. "
        "Every row was checked before it was kept:"
    )
    caution = [tag("p", _OPTIMISTIC, kind="soft")] if distill.labels == "oof" else []
    rows = [
        [doubt.path, doubt.label, f"{doubt.p_label:.2f}", doubt.teacher_class, f"{doubt.p_teacher_class:.2f}"]
        for doubt in known.suspects[:_LISTED]
    ]
    head = ["photo", "given label", "p", "teacher says", "p"]
    doubts = joined(
        [
            tag("h3", f"Labels that the teachers doubt: {len(known.suspects)}"),
            tag("p", "The strongest doubts first; suspects.csv has all, suspects.png shows them.", kind="soft"),
            table(head, rows) if rows else "",
        ]
    )
    listed = bullets(audits) if len(audits) <= _FEW_AUDITS else folded(f"{len(audits)} audits", bullets(audits))
    return section("Soft labels and their leak audit", tag("p", told), listed, *caution, doubts)


def photos(known: Known) -> Html:
    """Counts, and what `prepare` found."""
    folds = range(known.table.fold_count)
    counts = Counter((row.label, row.part, row.fold) for row in known.table)
    most = max((count for (_, part, _), count in counts.items() if part == "train"), default=1)
    labels = [*known.table.classes, *([""] if counts["", "test", None] else [])]
    rows: list[list[object]] = []
    for label in labels:
        cells = [_heat(counts[label, "train", fold], most) for fold in folds]
        rest = [counts[label, part, None] for part in ("selection", "test")]
        rows.append([label or "(unlabelled)", *cells, *rest])
    head = ["class", *(f"fold {fold}" for fold in folds), "selection", "test"]
    if len(folds) > _MANY_FOLDS > len(labels):  # a row for each fold is easier to read then
        rows = [[name, *(row[column] for row in rows)] for column, name in enumerate(head) if column]
        head = ["", *(label or "(unlabelled)" for label in labels)]
    prepared = known.prepared
    lists = [
        _list("left out", "rejected.csv", [f"{row['path']}: {row['reason']}" for row in prepared.rejected]),
        _list("duplicates settled", "duplicates.csv", [_finding(row) for row in prepared.duplicates]),
        _list("photos that stood in two parts, kept in one", "leaks.csv", [_finding(row) for row in prepared.leaks]),
        _list("files that are no photos, passed over", "", prepared.ignored),
    ]
    return section("Photos", table(head, rows), *lists)


def _heat(count: int, most: int) -> Html:
    return Html(f'<span class="heat" style="background: rgba(var(--heat), {0.32 * count / most:.3f})">{count}</span>')


def _finding(row: Mapping[str, str]) -> str:
    other = f"{row['other_part']} {row['other_path']} ({row['other_label'] or 'unlabelled'})"
    return f"{row['part']} {row['path']} ({row['label'] or 'unlabelled'}), {row['kind']} of {other}: {row['action']}"


def _list(what: str, file: str, items: Sequence[str]) -> Html:
    if not items:
        return tag("p", f"0 {what}", kind="soft")
    more = [f"and {len(items) - _LISTED} more" + (f", see {file}" if file else "")] if len(items) > _LISTED else []
    return folded(f"{len(items):,} {what}", bullets([*items[:_LISTED], *more]))
