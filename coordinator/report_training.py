"""The report's part on training: learning curves and scores of every fold, and what each recipe reached. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.charts import Line, line_chart
from coordinator.known import Known
from coordinator.page import Html, joined, section, table, tag
from coordinator.report_ensembles import METRICS
from coordinator.variants import Variant
from workers.tasks import TrainTask

_ROUNDS = ("teacher", "student")
_CHARTS = (("validation mAP", "mean_ap"), ("validation log loss", "val_loss"), ("training loss", "loss"))


def training(known: Known) -> Html:
    """Nothing before the first epoch was finished."""
    if not known.curves:
        return Html("")
    keys = [
        joined(
            [Html(f'<svg class="key" viewBox="0 0 26 8"><path class="curve {kind}" d="M0 4H26"/></svg>'), f"{kind}s"]
        )
        for kind in _ROUNDS
        if any(_kind(known, name) == kind for name in known.curves)
    ]
    return section(
        "Training",
        _recipes(known),
        tag("p", "One curve a fold, on the photos it held out; a dot is the epoch that was kept.", *keys, kind="soft"),
        *(_charts(known, variant) for variant in known.experiment.variants()),
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


def _belongs(task_name: str, variant: Variant) -> bool:
    """Whether `student/b4/repeat1/fold0` is of the variant `b4/repeat1`."""
    return task_name.split("/")[1:-1] == [part for part in variant.name.split("/") if part]


def _folds(known: Known) -> Html:
    head = ["model", "folds held out", "epochs", "kept", *METRICS.values(), "minutes"]
    rows = []
    for _, task, result in known.done(TrainTask):
        numbers = result.numbers
        scores = [f"{numbers[key]:.4f}" for key in METRICS]
        folds = ", ".join(map(str, task.held_out))
        minutes = f"{numbers['seconds'] / 60:.1f}"
        rows.append([task.name, folds, int(numbers["epochs"]), int(numbers["kept_epoch"]), *scores, minutes])
    return joined([tag("h3", "Kept weights on the held-out photos"), table(head, rows)]) if rows else Html("")


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
