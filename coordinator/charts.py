"""The report's charts as inline SVG: learning curves and intervals. Pure: the same numbers give the same text.

Colours are classes of the page's style sheet, so that the charts follow its light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.page import Html, escaped

_WIDTH, _HEIGHT = 380, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 30, 34
_BAR_WIDTH, _BAR_HEIGHT = 152, 18


@dataclass(frozen=True)
class Line:
    """One curve: points (x, y) in rising x; `kind` is its class (teacher / student); `dots` are places in `points`."""

    name: str
    kind: str
    points: tuple[tuple[float, float], ...]
    dots: tuple[int, ...] = ()


def line_chart(title: str, x_label: str, lines: Sequence[Line]) -> Html:
    """Curves over a shared pair of axes. Points that are not finite are left out."""
    shown = [[(x, y) for x, y in line.points if math.isfinite(y)] for line in lines]
    xs, ys = [x for points in shown for x, _ in points], [y for points in shown for _, y in points]
    if not ys:
        return Html("")
    y_ticks, x_ticks = ticks(min(ys), max(ys), 5), whole_ticks(min(xs), max(xs), 6)
    across = _Scale(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    up = _Scale(min(y_ticks[0], *ys), max(y_ticks[-1], *ys), _HEIGHT - _BOTTOM, _TOP)
    parts = [_text(_LEFT - 38, 14, title, "start"), _text(_WIDTH - _RIGHT, _HEIGHT - 4, x_label, "end")]
    for tick in y_ticks:
        y = up(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{tick:g}", "end"))
    parts += [_text(across(tick), _HEIGHT - _BOTTOM + 16, f"{tick:g}", "middle") for tick in x_ticks]
    for line, points in zip(lines, shown, strict=True):
        places = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="curve {line.kind}" points="{places}">{_tip(_described(line))}</polyline>')
        for x, y in [line.points[place] for place in line.dots]:
            tip = _tip(f"{line.name}, {x_label} {x:g}: {y:.4f} (kept)")
            parts.append(f'<circle class="dot {line.kind}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="4">{tip}</circle>')
    label = escaped(f"{title} by {x_label}, {len(lines)} curves")
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
    return Html(head + "".join(parts) + "</svg>")


def interval_bar(
    score: float, interval: tuple[float, float], *, within: tuple[float, float], guide: float, best: bool
) -> Html:
    """A score with its interval on the scale `within`, and the winner's score as a dotted guide."""
    low, high = interval
    scale = _Scale(*within, 5, _BAR_WIDTH - 5)
    middle, kind = _BAR_HEIGHT / 2, "point best" if best else "point"
    tip = _tip(f"{score:.4f}, 95 % interval {low:.4f} to {high:.4f}")
    return Html(
        f'<svg class="inline" viewBox="0 0 {_BAR_WIDTH} {_BAR_HEIGHT}" role="img" '
        f'aria-label="{score:.4f} ({low:.4f} to {high:.4f})">{tip}'
        f'<line class="guide" x1="{scale(guide):.1f}" x2="{scale(guide):.1f}" y1="0" y2="{_BAR_HEIGHT}"/>'
        f'<line class="whisker" x1="{scale(low):.1f}" x2="{scale(high):.1f}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="{kind}" cx="{scale(score):.1f}" cy="{middle}" r="4"/></svg>'
    )


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers, 1, 2 or 5 times a power of ten apart, that reach over `low` and `high`."""
    size = max(abs(low), abs(high))
    if high - low <= max(1e-12, 1e-9 * size):  # no range that a person could tell apart
        margin = 0.5 * size if size > 1e-12 else 0.5
        low, high = low - margin, high + margin
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def whole_ticks(low: float, high: float, count: int) -> list[float]:
    """The whole numbers among `ticks`, inside the range: epochs have no halves."""
    return [tick for tick in ticks(low, high, count) if tick == int(tick) and low <= tick <= high]


@dataclass(frozen=True)
class _Scale:
    """Numbers to places, straight. A range of one number maps to the middle."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = 0.5 if self.high == self.low else (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def _tip(text: str) -> str:
    return f"<title>{escaped(text)}</title>"


def _described(line: Line) -> str:
    return f"{line.name}: last {line.points[-1][1]:.4f}"
