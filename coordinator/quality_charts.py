"""The report's charts of where the chosen ensemble is right and wrong, as inline SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.axes import BOTTOM, LEFT, RIGHT, TOP, Scale, drawing, frame, shortened, text, tip
from coordinator.charts import CHART
from coordinator.page import Html
from coordinator.quality import Bin

_FIFTHS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
_NAMED_CLASSES, _NAME_CHARACTERS, _CHARACTER = 40, 16, 6.2
_COUNTED_CLASSES = 15  # with more, a cell has no room for its number


def confusion_chart(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """A square of cells: a row for what photos are, a column for what they were called, shaded by the row's share."""
    many = len(classes)
    cell = 44 if many <= 8 else 30 if many <= _COUNTED_CLASSES else max(4, 600 // many)
    named = many <= _NAMED_CLASSES
    names = [shortened(name, _NAME_CHARACTERS) for name in classes]
    room = max(len(name) for name in names) * _CHARACTER + 8 if named else 4
    left, top = round(room) + 16, round(room * 0.71) + 26  # the columns' names stand aslant
    parts = [text(left, 12, "called", "start"), _aslant(10, top + 8, "is", 0)]
    for row, line in enumerate(counts):
        total = sum(line)
        if named:
            shown = text(left - 6, top + (row + 0.5) * cell + 4, names[row], "end")
            parts.append(f"<g>{tip(classes[row])}{shown}{_aslant(left + (row + 0.5) * cell, top - 6, names[row])}</g>")
        for column, count in enumerate(line):
            if count == 0 and many > _COUNTED_CLASSES:
                continue
            x, y, share = left + column * cell, top + row * cell, count / total if total else 0.0
            words = tip(f"{classes[row]}, called {classes[column]}: {count} of {total} ({share:.0%})")
            kind = "right" if row == column else "wrong"
            place = f'x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}"'
            parts.append(f'<rect class="cell {kind}" {place} style="fill-opacity: {_depth(share):.2f}">{words}</rect>')
            if many <= _COUNTED_CLASSES:
                dark = "cell-count deep" if share > 0.55 else "cell-count"
                parts.append(text(x + cell / 2 - 0.5, y + cell / 2 + 4, str(count), "middle", dark))
    side = many * cell
    parts.insert(0, f'<rect class="cells" x="{left}" y="{top}" width="{side - 1}" height="{side - 1}"/>')
    size = (left + side + round(room * 0.71), top + side + 4)
    return drawing(size, f"confusion matrix of {many} classes", parts, "matrix")


def precision_chart(curves: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> Html:
    """Precision by recall: (name, recalls, precisions) of each class, in rising recall; a colour for each of ten."""
    across, up = _unit_scales()
    parts = frame(CHART, "precision by recall", "recall", (across, _FIFTHS), (up, _FIFTHS))
    for number, (name, recalls, precisions) in enumerate(curves):
        path, before = f"M{across(0.0):.1f} {up(precisions[0]):.1f}", ""
        for recall, precision in zip(recalls, precisions, strict=True):
            step = f"V{up(precision):.1f}H{across(recall):.1f}"
            path, before = (path if step == before else path + step), step
        parts.append(f'<path class="curve class{number % 10}" d="{path}">{tip(name)}</path>')
    return drawing(CHART, f"precision by recall of {len(curves)} classes", parts)


def calibration_chart(bins: Sequence[Bin]) -> Html:
    """How often the ensemble is right by how sure it is, with intervals, over bars of how many photos that are."""
    across, up = _unit_scales()
    parts = frame(CHART, "right, by how sure it is", "probability of its class", (across, _FIFTHS), (up, _FIFTHS))
    most = max(found.count for found in bins)
    for found in bins:
        x, tall = across(found.confidence), (up(0.0) - up(1.0)) * 0.3 * found.count / most
        bar = f'x="{x - 7:.1f}" y="{up(0.0) - tall:.1f}" width="14" height="{tall:.1f}"'
        parts.append(f'<rect class="amount" {bar}>{tip(f"{found.count} photos")}</rect>')
    parts.append(f'<path class="ideal" d="M{across(0.0):.1f} {up(0.0):.1f}L{across(1.0):.1f} {up(1.0):.1f}"/>')
    for found in bins:
        x = across(found.confidence)
        words = tip(
            f"{found.count} photos: {found.confidence:.0%} sure, {found.accuracy:.0%} right "
            f"(95 % interval {found.low:.0%} to {found.high:.0%})"
        )
        parts.append(f'<path class="whisker" d="M{x:.1f} {up(found.low):.1f}V{up(found.high):.1f}"/>')
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{up(found.accuracy):.1f}" r="4">{words}</circle>')
    return drawing(CHART, f"calibration in {len(bins)} bins", parts)


def _unit_scales() -> tuple[Scale, Scale]:
    return Scale(0.0, 1.0, LEFT, CHART[0] - RIGHT), Scale(0.0, 1.0, CHART[1] - BOTTOM, TOP)


def _depth(share: float) -> float:
    """Few must be seen among none: a count of one in a thousand has a shade too."""
    return 0.12 + 0.78 * share if share else 0.0


def _aslant(x: float, y: float, words: str, degrees: int = -45) -> str:
    turned = f' transform="rotate({degrees} {x:.1f} {y:.1f})"' if degrees else ""
    return f"<g{turned}>{text(x, y, words, 'start')}</g>"
