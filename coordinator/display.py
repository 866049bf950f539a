"""The screen of a run: tables, a bar and sentences that fit a terminal's width and height, as one text. Pure.

Columns are laid out here and not by rich's tables, which take twenty times as long: a screen is drawn twice a second,
beside a fleet's driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

_GAP = "  "
_NARROWEST = 8  # a column that gives room away keeps so much
_EIGHTHS, _REST = " ▏▎▍▌▋▊▉", "·"


@dataclass(frozen=True)
class Column:
    """`spare`: where a terminal is narrow, the column with the highest number goes first; 0 never goes."""

    title: str
    right: bool = False
    spare: int = 0
    widest: int = 40


@dataclass(frozen=True)
class Row:
    cells: tuple[str, ...]
    style: str = ""


@dataclass(frozen=True)
class Rows:
    """The rows that found room, and how many did not, by a word for them."""

    rows: Sequence[Row]
    more: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    name: str
    done: int
    all: int


@dataclass(frozen=True)
class Display:
    """Everything that is shown of a run at one moment. `share`: of all work, done."""

    machines: Rows
    folds: Rows
    stages: Sequence[Stage]
    share: float
    sentences: Sequence[str]


MACHINES = (
    Column("machine", widest=20),
    Column("card", spare=2),
    Column("state", widest=24),
    Column("works on", widest=34),
    Column("images/s", right=True),
    Column("GPU GB", right=True, spare=1),
    Column("°C", right=True, spare=3),
    Column("link", right=True, spare=4),
)
FOLDS = (
    Column("task", widest=24),
    Column("state", widest=16),
    Column("machine", spare=1, widest=20),
    Column("epoch", right=True),
    Column("", spare=3),
    Column("loss", right=True, spare=4),
    Column("mAP", right=True, spare=2),
    Column("best", right=True),
    Column("left", right=True),
)
CHROME = 5  # lines beside the rows: two titles, the stages, the bar, an empty one


def drawn(screen: Display, width: int) -> Text:
    """The screen within `width` columns, a line for every row; cells that are too long end in an ellipsis."""
    text = Text(no_wrap=True, overflow="crop", end="")
    _table(text, MACHINES, screen.machines, "machines", width)
    if screen.machines.rows and screen.folds.rows:
        text.append("\n")
    _table(text, FOLDS, screen.folds, "folds", width)
    stages = "  ".join(f"{one.name} {one.done}/{one.all}" for one in screen.stages)
    text.append(cut(stages, width) + "\n")
    text.append(bar(screen.share, min(40, width - 6)), "green")
    text.append(f" {int(100 * screen.share)} %")
    for sentence in screen.sentences:
        text.append("\n" + cut(sentence, width), "bold")
    return text


def bar(share: float, width: int) -> str:
    """A share as a bar of blocks, to an eighth of a column."""
    eighths = int(min(1.0, max(0.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width, _REST)


def _table(text: Text, columns: Sequence[Column], rows: Rows, what: str, width: int) -> None:
    if not rows.rows:
        return
    widths = _widths(columns, rows.rows, width)
    text.append(_line([column.title for column in columns], columns, widths), "dim")
    text.append("\n")
    for row in rows.rows:
        text.append(_line(row.cells, columns, widths), row.style or None)
        text.append("\n")
    if rows.more:
        kinds = ", ".join(f"{count} {kind}" for kind, count in rows.more.items())
        text.append(cut(f"and {sum(rows.more.values())} more {what}: {kinds}", width), "dim")
        text.append("\n")


def _widths(columns: Sequence[Column], rows: Sequence[Row], width: int) -> dict[int, int]:
    """Columns that are shown, with their widths: empty ones never, and spare ones where there is room."""
    longest = [max(len(row.cells[place]) for row in rows) for place in range(len(columns))]
    widths = {
        place: min(max(longest[place], len(column.title)), column.widest)
        for place, column in enumerate(columns)
        if longest[place]
    }
    spare = sorted((place for place in widths if columns[place].spare), key=lambda place: columns[place].spare)
    while spare and _total(widths) > width:
        del widths[spare.pop()]
    while widths and (over := _total(widths) - width) > 0:
        place = max(widths, key=lambda place: widths[place])
        if widths[place] <= _NARROWEST:
            break
        widths[place] = max(_NARROWEST, widths[place] - over)
    return widths


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Mapping[int, int]) -> str:
    parts = []
    for place, size in widths.items():
        cell = cut(cells[place], size)
        parts.append(cell.rjust(size) if columns[place].right else cell.ljust(size))
    return _GAP.join(parts).rstrip()


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
