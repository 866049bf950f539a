"""How the report's page is put together: escaped HTML, tables, sections and the one style sheet. Pure.

A `str` is text and is escaped wherever it is put; only what is already `Html` stays as it is.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Html(str):
    """Markup that was made here, with everything of the person's in it escaped."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """`value` as markup: escaped, unless it is Html."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def tag(name: str, *content: object, kind: str = "") -> Html:
    """An element with the class `kind`."""
    opening = f'{name} class="{kind}"' if kind else name
    return Html(f"<{opening}>{joined(content)}</{name}>")


def joined(parts: Iterable[object]) -> Html:
    return Html("".join(escaped(part) for part in parts))


def table(head: Sequence[object], rows: Sequence[Sequence[object]], marked: Sequence[int] = ()) -> Html:
    """A table that scrolls sideways where it must. The rows `marked` stand out; cells of numbers are right-aligned."""
    top = tag("tr", *(tag("th", cell, kind=_side(rows, column)) for column, cell in enumerate(head)))
    body = [
        tag(
            "tr", *(tag("td", cell, kind=_side(rows, i)) for i, cell in enumerate(row)), kind="mark" * (place in marked)
        )
        for place, row in enumerate(rows)
    ]
    return tag("div", tag("table", tag("thead", top), tag("tbody", *body)), kind="wide")


def _side(rows: Sequence[Sequence[object]], column: int) -> str:
    cells = [row[column] for row in rows]
    return "number" if cells and all(isinstance(cell, (int, float)) or _numeric(str(cell)) for cell in cells) else ""


def _numeric(text: str) -> bool:
    return text in ("", "-") or text.replace(",", "").replace(".", "", 1).lstrip("+-").isdigit()


def bullets(items: Iterable[object]) -> Html:
    return tag("ul", *(tag("li", item) for item in items))


def folded(summary: str, *content: object) -> Html:
    """What opens at a click."""
    return tag("details", tag("summary", summary), *content)


def section(title: str, *content: object) -> Html:
    return tag("section", tag("h2", title), *content)


def page(title: str, *content: object) -> str:
    """The whole document: one file, no script, nothing fetched."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(escaped(part) for part in content)
        + "\n</main>\n</body>\n</html>\n"
    )


_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #ffffff; --ink: #1b2330; --soft: #5d6878; --line: #dde2e9;
  --mark: #e9f5ee; --good: #15803d; --teacher: #2563eb; --student: #c2560c; --heat: 37, 99, 235; }
@media (prefers-color-scheme: dark) { :root { --ground: #11151b; --card: #191f28; --ink: #e6eaf0; --soft: #98a3b3;
  --line: #2c3542; --mark: #16301f; --good: #4ade80; --teacher: #76a5ff; --student: #f59e57; --heat: 118, 165, 255; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
header p.run { color: var(--soft); margin: 0 0 .25rem; }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0 0 1rem; text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
h3 { font-size: .95rem; margin: 1.25rem 0 .5rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.25rem;
  margin-top: 1rem; }
p { margin: .5rem 0; overflow-wrap: anywhere; }
p.soft, .soft { color: var(--soft); }
ul { margin: .5rem 0; padding-left: 1.2rem; } li { margin: .2rem 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .75rem 1rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; color: var(--soft); font-weight: 500; } th, td { padding: .35rem .7rem .35rem 0;
  border-bottom: 1px solid var(--line); vertical-align: middle; } tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.whole { white-space: nowrap; font-variant-numeric: tabular-nums; } tr.mark td { background: var(--mark); }
.tag { display: inline-block; font-size: .75rem; border: 1px solid currentColor; border-radius: 99px; padding: 0 .5rem;
  margin-left: .4rem; color: var(--soft); white-space: nowrap; } .tag.good { color: var(--good); }
.heat { display: block; text-align: right; padding: .1rem .4rem; border-radius: 4px; }
summary { cursor: pointer; color: var(--soft); } details { margin-top: .5rem; }
pre { overflow-x: auto; font-size: .82rem; line-height: 1.45; }
svg { display: block; width: 100%; height: auto; } svg.inline { width: 9.5rem; height: 1.2rem; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg .grid { stroke: var(--line); }
svg .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .dot { stroke: var(--card); stroke-width: 1.2; }
.teacher { stroke: var(--teacher); } .student { stroke: var(--student); stroke-dasharray: 5 3; }
svg .dot.teacher { fill: var(--teacher); } svg .dot.student { fill: var(--student); stroke-dasharray: none; }
svg .whisker { stroke: var(--soft); stroke-width: 1.5; } svg .point { fill: var(--ink); }
svg .best { fill: var(--good); } svg .guide { stroke: var(--good); stroke-dasharray: 2 3; }
.key { display: inline-block; width: 1.6rem; vertical-align: middle; margin: 0 .35rem 0 .9rem; }
@media print { section, .tile { break-inside: avoid; } }
"""
