"""The report: one offline HTML page about a run, finished or not. Pure: the same `Known` gives the same text.

What a person wants to know comes first: what was chosen, how sure that is, and whether something simpler is as good.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter

from coordinator.config import to_yaml
from coordinator.known import Known
from coordinator.leaderboard import sentences
from coordinator.page import Html, bullets, folded, page, section, table, tag
from coordinator.report_data import photos, soft_labels
from coordinator.report_ensembles import METRICS, ensembles
from coordinator.report_training import training
from workers.tasks import PredictTask, TrainTask

VERSIONS = ("foldfleet", "torch", "timm", "albumentations", "ray", "numpy")


def build_report(known: Known) -> str:
    """The page of all that is known of the run."""
    parts = [_header(known), _tiles(known), ensembles(known), _test(known), training(known), soft_labels(known)]
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


def _set_up(known: Known) -> Html:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    rows = [[task.name, name, "done" if name in known.results else "open"] for name, task in known.tasks.items()]
    return section(
        "How it was made",
        tag("p", f"Snapshot {known.snapshot}. This page was written with {versions}."),
        folded("configuration", tag("pre", to_yaml(known.experiment).decode())),
        folded("tasks", table(["task", "id", ""], rows)),
    )
