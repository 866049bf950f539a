"""The report: one offline HTML page about a run, finished or not. Pure: the same `Known` gives the same text.

What a person wants to know comes first: what was chosen, how sure that is, and whether something simpler is as good.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter

from coordinator.charts import Line, line_chart
from coordinator.config import to_yaml
from coordinator.known import Known
from coordinator.leaderboard import sentences
from coordinator.page import Html, bullets, folded, joined, page, section, table, tag
from coordinator.report_data import photos, soft_labels
from coordinator.report_ensembles import METRICS, ensembles
from workers.tasks import PredictTask, TrainTask

VERSIONS = ("foldfleet", "torch", "timm", "albumentations", "ray", "numpy")


def build_report(known: Known) -> str:
    """The page of all that is known of the run."""
    parts = [_header(known), _tiles(known), ensembles(known), _test(known), _training(known), soft_labels(known)]
    parts += [photos(known), _set_up(known)]
    return page(f"foldfleet: {known.run}", *(part for part in parts if part))


def _header(known: Known) -> Html:
    run = tag("p", f"run {known.run}", kind="run")
    if known.search is not None:
        first, *rest = sentences(known.search["verdict"])
        chosen = " + ".join(known.tasks[name].name for name in known.winner)
        return tag("header", run, tag("h1", f"Chosen: {chosen}"), tag("p", first), bullets(rest) if rest else "")
    done = f"{len(known.results)} of {len(known.tasks)} tasks are done"
    return tag("header", run, tag("h1", f"Not finished: {done}."))


def _tiles(known: Known) -> Html:
    rows = Counter(row.part for row in known.table)
    photos = f"{rows['train']:,} train, {rows['selection']:,} selection, {rows['test']:,} test"
    tiles = [(f"{sum(rows.values()):,}", f"images: {photos}"), (len(known.table.classes), "classes")]
    trained = sum(1 for _ in known.done(TrainTask))
    tiles.append(
        (f"{trained} of {sum(isinstance(task, TrainTask) for task in known.tasks.values())}", "models trained")
    )
    if known.search is not None:
        winner, metric = known.search["winner"], METRICS[known.search["metric"]]
        interval = f"{winner['score_low']:.3f} to {winner['score_high']:.3f}"
        tiles.insert(0, (f"{winner['score']:.4f}", f"selection {metric} of the chosen ({interval})"))
    predict = known.only(PredictTask)
    if predict is not None and "test_accuracy" in predict.numbers:
        tiles.insert(1, (f"{predict.numbers['test_accuracy']:.4f}", "accuracy on the test photos"))
    return tag(
        "div", *(tag("div", tag("b", value), tag("span", words), kind="tile") for value, words in tiles), kind="tiles"
    )


def _test(known: Known) -> Html:
    predict = known.only(PredictTask)
    if predict is None:
        return Html("")
    count, labelled = int(predict.numbers["images"]), int(predict.numbers["labelled"])
    told = f"{count:,} test photos predicted; nothing was chosen on them."
    scores = {
        words: f"{predict.numbers[f'test_{key}']:.4f}"
        for key, words in METRICS.items()
        if f"test_{key}" in predict.numbers
    }
    shown = [tag("p", f"On the {labelled:,} that are labelled:"), table(list(scores), [list(scores.values())])]
    return section("Test photos", tag("p", told), *(shown if scores else []))


def _training(known: Known) -> Html:
    if not known.curves:
        return Html("")
    charts = [
        line_chart(title, "epoch", _lines(known, column, kept=column == "mean_ap"))
        for title, column in (
            ("validation mAP", "mean_ap"),
            ("validation log loss", "val_loss"),
            ("training loss", "loss"),
        )
    ]
    keys = [
        joined(
            [Html(f'<svg class="key" viewBox="0 0 26 8"><path class="curve {kind}" d="M0 4H26"/></svg>'), f"{kind}s"]
        )
        for kind in ("teacher", "student")
        if any(_kind(known, name) == kind for name in known.curves)
    ]
    head = ["model", "folds held out", "epochs", "kept", *(f"{words}" for words in METRICS.values()), "minutes"]
    rows = []
    for _, task, result in known.done(TrainTask):
        numbers = result.numbers
        scores = [f"{numbers[key]:.4f}" for key in METRICS]
        folds = ", ".join(map(str, task.held_out))
        minutes = f"{numbers['seconds'] / 60:.1f}"
        rows.append([task.name, folds, int(numbers["epochs"]), int(numbers["kept_epoch"]), *scores, minutes])
    return section(
        "Training",
        tag("p", "One curve a fold, on the photos it held out; a dot is the epoch that was kept.", *keys, kind="soft"),
        tag("div", *charts, kind="charts"),
        joined([tag("h3", "Kept weights on the held-out photos"), table(head, rows)]) if rows else "",
    )


def _lines(known: Known, column: str, kept: bool) -> list[Line]:
    lines = []
    for name, curve in known.curves.items():
        epochs = [int(row["epoch"]) for row in curve]
        result = known.results.get(name)
        kept_epoch = int(result.numbers["kept_epoch"]) if kept and result is not None else 0
        dots = (epochs.index(kept_epoch),) if kept_epoch in epochs else ()
        points = tuple((float(row["epoch"]), row[column]) for row in curve)
        lines.append(Line(known.tasks[name].name, _kind(known, name), points, dots))
    return lines


def _kind(known: Known, name: str) -> str:
    return "student" if known.tasks[name].name.startswith("student") else "teacher"


def _set_up(known: Known) -> Html:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    rows = [[task.name, name, "done" if name in known.results else "open"] for name, task in known.tasks.items()]
    return section(
        "How it was made",
        tag("p", f"Snapshot {known.snapshot}. This page was written with {versions}."),
        folded("configuration", tag("pre", to_yaml(known.experiment).decode())),
        folded("tasks", table(["task", "id", ""], rows)),
    )
