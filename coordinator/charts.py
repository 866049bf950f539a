"""The report's learning curves, intervals and frontier, as inline SVG. Pure: the same numbers give the same text.

Colours are classes of the page's style sheet, so that the charts follow its light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.axes import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    LogScale,
    Scale,
    doubling_ticks,
    drawing,
    frame,
    ticks,
    tip,
    whole_ticks,
)
from coordinator.page import Html

CHART, SMALL_CHART, WIDE_CHART = (380, 240), (240, 160), (1000, 300)
_BAR_WIDTH, _BAR_HEIGHT = 152, 18
_MANY_LINES = 24  # from here on they are drawn thinner, and let one another shine through
_LOG_FROM = 12  # times between the cheapest and the dearest: a straight scale would press the cheap ones together


@dataclass(frozen=True)
class Line:
    """One curve: points (x, y) in rising x; `kind` is its class (teacher / student); `dots` are places in `points`."""

    name: str
    kind: str
    points: tuple[tuple[float, float], ...]
    dots: tuple[int, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One ensemble of the frontier chart."""

    name: str
    ms: float
    score: float
    chosen: bool = False


def line_chart(title: str, x_label: str, lines: Sequence[Line], size: tuple[int, int] = CHART) -> Html:
    """Curves over a shared pair of axes. Points that are not finite are left out."""
    shown = [[(x, y) for x, y in line.points if math.isfinite(y)] for line in lines]
    xs, ys = [x for points in shown for x, _ in points], [y for points in shown for _, y in points]
    if not ys:
        return Html("")
    width, height = size
    y_ticks, x_ticks = ticks(min(ys), max(ys), 5 if height >= CHART[1] else 3), whole_ticks(min(xs), max(xs), 6)
    across = Scale(min(xs), max(xs), LEFT, width - RIGHT)
    up = Scale(min(y_ticks[0], *ys), max(y_ticks[-1], *ys), height - BOTTOM, TOP)
    parts = frame(size, title, x_label, (across, x_ticks), (up, y_ticks))
    for line, points in zip(lines, shown, strict=True):
        if len(points) == 1:  # a line of one point is not seen
            x, y = points[0]
            parts.append(f'<circle class="dot {line.kind}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5"/>')
        places = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="curve {line.kind}" points="{places}">{tip(_described(line))}</polyline>')
        for x, y in [line.points[place] for place in line.dots]:
            words = tip(f"{line.name}, {x_label} {x:g}: {y:.4f} (kept)")
            parts.append(
                f'<circle class="dot {line.kind}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="4">{words}</circle>'
            )
    return drawing(size, f"{title} by {x_label}, {len(lines)} curves", parts, "many" * (len(lines) > _MANY_LINES))


def frontier(choices: Sequence[Choice], lower_is_better: bool) -> list[Choice]:
    """Those that nothing as cheap is as good as, cheapest first: the Pareto frontier of score against ms. Of equals
    the chosen one stands for all."""
    best: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.ms, c.score if lower_is_better else -c.score, not c.chosen, c.name)):
        if not best or (choice.score < best[-1].score if lower_is_better else choice.score > best[-1].score):
            best.append(choice)
    return best


def frontier_chart(title: str, choices: Sequence[Choice], lower_is_better: bool) -> Html:
    """Every choice by what it costs, those on the frontier joined by steps; the chosen one stands out."""
    size = WIDE_CHART
    costs, values = [choice.ms for choice in choices], [choice.score for choice in choices]
    y_ticks = ticks(min(values), max(values), 6)
    up = Scale(y_ticks[0], y_ticks[-1], size[1] - BOTTOM, TOP)
    across: Scale | LogScale
    if min(costs) > 0 and max(costs) > _LOG_FROM * min(costs):
        x_ticks = doubling_ticks(min(costs), max(costs))
        across = LogScale(x_ticks[0], x_ticks[-1], LEFT, size[0] - RIGHT)
    else:
        x_ticks = ticks(min(0.0, *costs), max(costs), 8)
        across = Scale(x_ticks[0], x_ticks[-1], LEFT, size[0] - RIGHT)
    parts = frame(size, title, "ms per image", (across, x_ticks), (up, y_ticks))
    best = frontier(choices, lower_is_better)
    on_it = set(best)
    for choice in sorted(choices, key=lambda c: (c in on_it, c.chosen)):  # what matters is drawn last, on top
        kind = "choice" + " edge" * (choice in on_it) + " best" * choice.chosen
        words = f"{choice.name}: {choice.score:.4f}, {choice.ms:.1f} ms per image" + ", chosen" * choice.chosen
        radius = 6 if choice.chosen else 4.5 if choice in on_it else 2.5
        place = f'cx="{across(choice.ms):.1f}" cy="{up(choice.score):.1f}"'
        parts.append(f'<circle class="{kind}" {place} r="{radius}">{tip(words)}</circle>')
    steps = f"M{across(best[0].ms):.1f} {up(best[0].score):.1f}" + "".join(
        f"H{across(choice.ms):.1f}V{up(choice.score):.1f}" for choice in best[1:]
    )
    parts.insert(0, f'<path class="edge-line" d="{steps}H{size[0] - RIGHT}"/>')
    label = f"{title} against milliseconds per image, {len(choices)} ensembles, {len(best)} on the frontier"
    return drawing(size, label, parts, "broad")


def interval_bar(
    score: float, interval: tuple[float, float], *, within: tuple[float, float], guide: float, best: bool
) -> Html:
    """A score with its interval on the scale `within`, and the winner's score as a dotted guide."""
    low, high = interval
    scale = Scale(*within, 5, _BAR_WIDTH - 5)
    middle, kind = _BAR_HEIGHT / 2, "point best" if best else "point"
    words = tip(f"{score:.4f}, 95 % interval {low:.4f} to {high:.4f}")
    parts = [
        words,
        f'<line class="guide" x1="{scale(guide):.1f}" x2="{scale(guide):.1f}" y1="0" y2="{_BAR_HEIGHT}"/>',
        f'<line class="whisker" x1="{scale(low):.1f}" x2="{scale(high):.1f}" y1="{middle}" y2="{middle}"/>',
        f'<circle class="{kind}" cx="{scale(score):.1f}" cy="{middle}" r="4"/>',
    ]
    return drawing((_BAR_WIDTH, _BAR_HEIGHT), f"{score:.4f} ({low:.4f} to {high:.4f})", parts, "inline")


def _described(line: Line) -> str:
    return f"{line.name}: last {line.points[-1][1]:.4f}"
