"""The report's part on the chosen ensemble: confusion, precision by recall, calibration, its worst mistakes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coordinator.judged import Judged
from coordinator.known import Known
from coordinator.page import Html, figure, joined, key, section, table, tag
from coordinator.quality import calibration, confusion, precision_by_recall, worst_mistakes
from coordinator.quality_charts import calibration_chart, confusion_chart, precision_chart
from workers.metrics import Floats, average_precisions

_TITLES = {
    "selection": "The chosen on the selection photos",
    "test": "The chosen on the labelled test photos",
}
_NOTES = {
    "selection": "No model was trained on these photos, but the choice was made on them, which flatters it a little.",
    "test": "Nothing was trained or chosen on these photos.",
}
_CURVES, _CONFUSED, _POINTS = 10, 10, 200


def winner(known: Known, thumbnails: Mapping[str, str]) -> Html:
    """Nothing before the search is done. `thumbnails`: data URIs of photos by image id."""
    return joined([_part(judged, thumbnails) for judged in known.judged])


def _part(judged: Judged, thumbnails: Mapping[str, str]) -> Html:
    counts = confusion(judged.probabilities, judged.labels)
    bins, error = calibration(judged.probabilities, judged.labels)
    right = int(np.trace(counts))
    told = f"{right:,} of {len(judged.labels):,} photos are called what they are. {_NOTES[judged.part]}"
    sure = f"On average it is {error:.3f} off (expected calibration error, 10 bins); bars show how many photos."
    aps = average_precisions(judged.probabilities, judged.labels)
    charts = [
        tag("div", confusion_chart(judged.classes, counts.tolist()), kind="matrix-room"),
        joined([_curves(judged, aps)]),
        joined([calibration_chart(bins), tag("p", sure, kind="soft small")]),
    ]
    return section(
        _TITLES[judged.part],
        tag("p", told, kind="soft"),
        tag("div", *(tag("div", chart) for chart in charts), kind="charts"),
        _confused(judged, counts.tolist()),
        tag("h3", "By class"),
        _classes(judged, counts.tolist(), aps.tolist()),
        _mistakes(judged, thumbnails),
    )


def _curves(judged: Judged, aps: Floats) -> Html:
    """One curve a class; of many classes only those of lowest AP, where there is something to see."""
    there = [place for place in range(len(judged.classes)) if np.isfinite(aps[place])]
    shown = sorted(sorted(there, key=lambda place: (aps[place], place))[:_CURVES])
    curves, keys = [], []
    for number, place in enumerate(shown):
        recall, precision = precision_by_recall(judged.probabilities, judged.labels, place)
        kept = np.unique(np.linspace(0, len(recall) - 1, min(len(recall), _POINTS)).round().astype(int))
        name = f"{judged.classes[place]}: AP {aps[place]:.3f}"
        curves.append((name, recall[kept].tolist(), precision[kept].tolist()))
        keys.append(key(f'<path class="curve class{number}" d="M0 4H26"/>', judged.classes[place]))
    few = f"the {len(shown)} classes of lowest AP out of {len(there)}: " if len(shown) < len(there) else ""
    return joined([precision_chart(curves), tag("p", few, *keys, kind="soft small keys")])


def _confused(judged: Judged, counts: list[list[int]]) -> Html:
    """The pairs that are taken for one another most often."""
    pairs = [
        (count, row, column)
        for row, line in enumerate(counts)
        for column, count in enumerate(line)
        if row != column and count
    ]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:_CONFUSED]
    if not worst or len(judged.classes) <= 2:
        return Html("")
    rows = [
        [judged.classes[row], judged.classes[column], count, f"{count / sum(counts[row]):.0%}"]
        for count, row, column in worst
    ]
    head = ["these", "are called", "photos", "of them"]
    return joined([tag("h3", "Most often mistaken"), table(head, rows)])


def _classes(judged: Judged, counts: list[list[int]], aps: list[float]) -> Html:
    rows = []
    for place, name in enumerate(judged.classes):
        total, called, hit = sum(counts[place]), sum(line[place] for line in counts), counts[place][place]
        shares = [f"{hit / called:.3f}" if called else "-", f"{hit / total:.3f}" if total else "-"]
        rows.append([name, total, f"{aps[place]:.4f}" if total else "-", *shares])
    return table(["class", "photos", "AP", "precision", "recall"], rows)


def _mistakes(judged: Judged, thumbnails: Mapping[str, str]) -> Html:
    wrong = len(worst_mistakes(judged.probabilities, judged.labels, judged.paths, len(judged.paths)))
    if not wrong:
        return tag("p", "No photo is called another class.")
    cards = []
    for place in judged.worst:
        chances, label = judged.probabilities[place], int(judged.labels[place])
        called = int(chances.argmax())
        lines = [
            tag("span", f"called {judged.classes[called]} ({chances[called]:.2f})", kind="bad"),
            tag("span", f"is {judged.classes[label]} ({chances[label]:.2f})"),
            tag("span", judged.paths[place], kind="soft path"),
        ]
        cards.append(figure(thumbnails.get(judged.image_ids[place], ""), judged.paths[place], *lines))
    head = tag("h3", f"Worst mistakes: {len(cards)} of {wrong}")
    return joined([head, tag("p", "The surest first.", kind="soft"), tag("div", *cards, kind="photos")])
