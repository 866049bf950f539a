"""The report: one offline HTML page about a run, finished or not. Pure: the same `Known` gives the same text.

What a person wants to know comes first: what was chosen, how sure that is, and whether something simpler is as good.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Mapping

from coordinator.config import to_yaml
from coordinator.history import History, read_history
from coordinator.known import Known
from coordinator.leaderboard import METRIC_WORDS, sentences
from coordinator.page import Html, bullets, folded, page, section, table, tag
from coordinator.report_data import photos, soft_labels
from coordinator.report_ensembles import ensembles
from coordinator.report_fleet import fleet, gave_up
from coordinator.report_training import training
from coordinator.report_winner import winner
from workers.tasks import PredictTask, TrainTask

VERSIONS = ("foldfleet", "torch", "timm", "albumentations", "ray", "numpy")
"""Packages whose versions a report and a result name."""


def build_report(known: Known, thumbnails: Mapping[str, str]) -> str:
    """The page of all that is known of the run. `thumbnails`: data URIs of the photos to show, by image id."""
    history = read_history(known.events)
    parts = [_header(known, history), _tiles(known), ensembles(known), _test(known), winner(known, thumbnails)]
    parts += [training(known), fleet(known, history), soft_labels(known), photos(known), _set_up(known)]
    return page(f"foldfleet: {known.run}", *(part for part in parts if part))


def _header(known: Known, history: History) -> Html:
    run = tag("p", f"run {known.run}", kind="run")
    open_tasks = len(known.tasks) - len(known.results)
    done = f"{len(known.results)} of {len(known.tasks)} tasks are done"
    whys = gave_up(known, history) if open_tasks else []
    if known.search is not None:
        first, *rest = sentences(known.search["verdict"])
        first = first.replace("+", " + ")  # so that a phone can break the line there
        rest += [f"Not finished: {done}."] * bool(open_tasks) + whys
        return tag("header", run, tag("h1", first), bullets(rest) if rest else "")
    why = bullets(whys) if whys else ""
    goes_on = tag("p", "Finished work is kept: the same command goes on from there.", kind="soft") if whys else ""
    return tag("header", run, tag("h1", f"Not finished: {done}."), why, goes_on)


def _tiles(known: Known) -> Html:
    rows = Counter(row.part for row in known.table)
    photos = f"{rows['train']:,} train, {rows['selection']:,} selection, {rows['test']:,} test"
    tiles = [(f"{sum(rows.values()):,}", f"images: {photos}"), (len(known.table.classes), "classes")]
    trained = sum(1 for _ in known.done(TrainTask))
    tiles.append(
        (f"{trained} of {sum(isinstance(task, TrainTask) for task in known.tasks.values())}", "models trained")
    )
    if known.search is not None:
        best, metric = known.search["winner"], METRIC_WORDS[known.search["metric"]]
        interval = f"{best['score_low']:.3f} to {best['score_high']:.3f}"
        tiles.insert(0, (f"{best['score']:.4f}", f"selection {metric} of the chosen ({interval})"))
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
        for key, words in METRIC_WORDS.items()
        if f"test_{key}" in predict.numbers
    }
    shown = [tag("p", f"On the {labelled:,} that are labelled:"), table(list(scores), [list(scores.values())])]
    return section("Test photos", tag("p", told), *(shown if scores else []))


def _set_up(known: Known) -> Html:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    rows = [[task.name, name, "done" if name in known.results else "open"] for name, task in known.tasks.items()]
    experiment = known.experiment
    seeds = f"folds {experiment.folds.seed}, training {experiment.recipe.seed}, ensemble {experiment.ensemble.seed}"
    return section(
        "How it was made",
        tag("p", f"Snapshot {known.snapshot}. Seeds: {seeds}."),
        tag("p", f"This page was written with {versions}."),
        folded("configuration", tag("pre", to_yaml(experiment).decode())),
        folded("tasks", table(["task", "id", ""], rows)),
    )
