"""The report's part on training: learning curves and scores of every fold, and what each recipe reached. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from coordinator.charts import SMALL_CHART, Line, line_chart
from coordinator.known import Known
from coordinator.leaderboard import METRIC_WORDS
from coordinator.machine_lines import duration
from coordinator.page import Html, folded, joined, key, section, table, tag
from coordinator.variants import Variant
from workers.tasks import TrainTask

_ROUNDS = ("teacher", "student")
_MANY_MODELS = 24
_CHARTS = (("validation mAP", "mean_ap"), ("validation log loss", "val_loss"), ("training loss", "loss"))


def training(known: Known) -> Html:
    """Nothing before the first epoch was finished."""
    if not known.curves:
        return Html("")
    keys = [
        key(f'<path class="curve {kind}" d="M0 4H26"/>', f"{kind}s")
        for kind in _ROUNDS
        if any(_kind(known, name) == kind for name in known.curves)
    ]
    return section(
        "Training",
        _recipes(known),
        tag("p", "One curve a fold, on the photos it held out; a dot is the epoch that was kept.", *keys, kind="soft"),
        *(_charts(known, variant) for variant in known.experiment.variants()),
        folded("fold by fold", *(_fold_charts(known, variant) for variant in known.experiment.variants())),
        _folds(known),
    )


def _recipes(known: Known) -> Html:
    """What each recipe in each repeat is and reached; nothing where there is only one."""
    variants = known.experiment.variants()
    if len(variants) == 1:
        return Html("")
    head = ["recipe", "network", "pixels", "epochs", "seed", *(f"{kind}s, held-out mAP" for kind in _ROUNDS)]
    rows = []
    for variant in variants:
        recipe = variant.recipe
        scores = [_mean_score(known, variant, kind) for kind in _ROUNDS]
        name = variant.name or "recipe"
        rows.append([name, recipe.model, recipe.image_size, recipe.epochs, recipe.seed, *scores])
    return joined([tag("h3", "Recipes"), table(head, rows)])


def _mean_score(known: Known, variant: Variant, kind: str) -> str:
    found = [
        result.numbers["mean_ap"]
        for _, task, result in known.done(TrainTask)
        if _belongs(task.name, variant) and task.name.startswith(f"{kind}/")
    ]
    return f"{sum(found) / len(found):.4f}" if found else ""


def _charts(known: Known, variant: Variant) -> Html:
    names = [name for name in known.curves if _belongs(known.tasks[name].name, variant)]
    if not names:
        return Html("")
    charts = [line_chart(title, "epoch", _lines(known, names, column)) for title, column in _CHARTS]
    shown = tag("div", *charts, kind="charts")
    return joined([tag("h3", variant.name), shown]) if variant.name else shown


def _fold_charts(known: Known, variant: Variant) -> Html:
    """A small chart of validation mAP for each fold, its teacher and its student together."""
    models: dict[tuple[int, ...], list[str]] = {}
    for name in known.curves:
        task = known.tasks[name]
        if isinstance(task, TrainTask) and _belongs(task.name, variant):
            models.setdefault(task.held_out, []).append(name)
    charts = []
    for held_out, names in sorted(models.items()):
        title = f"fold {', '.join(map(str, held_out))}, mAP"
        charts.append(line_chart(title, "epoch", _lines(known, names, "mean_ap"), SMALL_CHART))
    shown = tag("div", *charts, kind="charts small-charts")
    return joined([tag("h3", variant.name), shown]) if variant.name and charts else shown


def _belongs(task_name: str, variant: Variant) -> bool:
    """Whether `student/b4/repeat1/fold0` is of the variant `b4/repeat1`."""
    return task_name.split("/")[1:-1] == [part for part in variant.name.split("/") if part]


def _folds(known: Known) -> Html:
    head = ["model", "folds held out", "epochs", "kept", *METRIC_WORDS.values(), "took"]
    rows = []
    for _, task, result in known.done(TrainTask):
        numbers = result.numbers
        scores = [f"{numbers[name]:.4f}" for name in METRIC_WORDS]
        folds = ", ".join(map(str, task.held_out))
        took = tag("span", duration(numbers["seconds"]), kind="whole")
        rows.append([task.name, folds, int(numbers["epochs"]), int(numbers["kept_epoch"]), *scores, took])
    title, shown = tag("h3", "Kept weights on the held-out photos"), table(head, rows)
    if len(rows) > _MANY_MODELS:
        shown = joined([_spread(known), folded(f"each of the {len(rows)} models", shown)])
    return joined([title, shown]) if rows else Html("")


def _spread(known: Known) -> Html:
    """What teachers and students reach: the mean over the folds, and how far those lie apart."""
    rows = []
    for kind in _ROUNDS:
        reached = [result.numbers for _, task, result in known.done(TrainTask) if task.name.startswith(f"{kind}/")]
        for name, words in METRIC_WORDS.items() if reached else ():
            values = [numbers[name] for numbers in reached]
            spread = [f"{value:.4f}" for value in (statistics.fmean(values), min(values), max(values))]
            rows.append([f"{kind}s", words, len(values), *spread])
    return table(["", "metric", "models", "mean", "lowest", "highest"], rows)


def _lines(known: Known, names: Sequence[str], column: str) -> list[Line]:
    lines = []
    for name in names:
        curve, result = known.curves[name], known.results.get(name)
        epochs = [int(row["epoch"]) for row in curve]
        kept_epoch = int(result.numbers["kept_epoch"]) if column == "mean_ap" and result is not None else 0
        dots = (epochs.index(kept_epoch),) if kept_epoch in epochs else ()
        points = tuple((float(row["epoch"]), row[column]) for row in curve)
        lines.append(Line(known.tasks[name].name, _kind(known, name), points, dots))
    return lines


def _kind(known: Known, name: str) -> str:
    return known.tasks[name].name.split("/")[0]
