"""How the report's page is put together: escaped HTML, tables, sections. Pure.

A `str` is text and is escaped wherever it is put; only what is already `Html` stays as it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from coordinator.style import STYLE

_MARKUP = re.compile(r"<[^>]*>")


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
    cells = [_MARKUP.sub("", str(row[column])) for row in rows]
    return "number" if any(cells) and all(_numeric(cell) for cell in cells) else ""


def _numeric(text: str) -> bool:
    return text in ("", "-") or text.replace(",", "").replace(".", "", 1).removesuffix("%").lstrip("+-").isdigit()


def bullets(items: Iterable[object]) -> Html:
    return tag("ul", *(tag("li", item) for item in items))


def folded(summary: str, *content: object) -> Html:
    """What opens at a click."""
    return tag("details", tag("summary", summary), *content)


def figure(source: str, words: str, *caption: object) -> Html:
    """A picture (a data URI; a blank without one) with the lines below it."""
    picture = Html(f'<img src="{escaped(source)}" alt="{escaped(words)}" title="{escaped(words)}">') if source else ""
    return tag("figure", tag("div", picture, kind="frame"), tag("figcaption", *caption))


def key(shape: str, words: object) -> Html:
    """What a colour or a sign of a chart stands for: an SVG shape of 26 x 8, and words."""
    return tag("span", Html(f'<svg class="key" viewBox="0 0 26 8">{shape}</svg>'), words, kind="key-name")


def section(title: str, *content: object) -> Html:
    return tag("section", tag("h2", title), *content)


def page(title: str, *content: object) -> str:
    """The whole document: one file, no script, nothing fetched."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(escaped(part) for part in content)
        + "\n</main>\n</body>\n</html>\n"
    )
