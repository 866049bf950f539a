"""What the report's charts are drawn with: scales, round ticks, the frame with its grid, texts and tips. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coordinator.page import Html, escaped

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 30, 34  # around the part of a chart that is drawn in
Place = Callable[[float], float]
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True)
class Scale:
    """Numbers to places, straight. A range of one number maps to the middle."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = 0.5 if self.high == self.low else (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class LogScale:
    """Positive numbers to places, each doubling as far as any other."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return Scale(math.log(self.low), math.log(self.high), self.start, self.end)(math.log(value))


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


def doubling_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten that reach over a range of positive numbers, and no further."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    found = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    first, last = max(tick for tick in found if tick <= low), min(tick for tick in found if tick >= high)
    return [tick for tick in found if first <= tick <= last]


def time_ticks(seconds: float, count: int) -> list[tuple[float, str]]:
    """At most about `count` moments from 0 to `seconds`, in steps that a clock has, and their words."""
    days = [86400 * day for day in ticks(0, max(1.0, seconds / 86400), count) if day >= 1]
    step = next(step for step in (*_TIME_STEPS, *days) if seconds / step <= count)
    unit, word = next(unit for unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")) if step % unit[0] == 0)
    return [(at * step, f"{at * step / unit:g} {word}") for at in range(int(seconds // step) + 1)]


def frame(
    size: tuple[int, int],
    title: str,
    x_label: str,
    across: tuple[Place, Sequence[float]],
    up: tuple[Place, Sequence[float]],
) -> list[str]:
    """Title, grid and ticks of a chart of `size`: where numbers lie, and which are written, across and up."""
    width, height = size
    parts = [text(LEFT - 38, 14, title, "start"), text(width - RIGHT, height - 4, x_label, "end")]
    for tick in up[1]:
        y = up[0](tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(LEFT - 6, y + 4, f"{tick:g}", "end"))
    return parts + [text(across[0](tick), height - BOTTOM + 16, f"{tick:g}", "middle") for tick in across[1]]


def drawing(size: tuple[int, int], label: str, parts: Sequence[str], kind: str = "") -> Html:
    """An SVG that is as wide as its place; `label` says what it shows to whoever does not see it."""
    named = f' class="{kind}"' if kind else ""
    head = f'<svg{named} viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escaped(label)}">'
    return Html(head + "".join(parts) + "</svg>")


def text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(words)}</text>'


def tip(words: str) -> str:
    """What is shown when a pointer rests on the shape around it."""
    return f"<title>{escaped(words)}</title>"


def shortened(words: str, most: int) -> str:
    """`words`, or their two ends around dots where they are longer than `most`."""
    return words if len(words) <= most else f"{words[: most // 2]}…{words[len(words) - (most - most // 2 - 1) :]}"
