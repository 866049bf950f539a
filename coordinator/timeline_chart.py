"""The timeline of a fleet as inline SVG: a lane for each slot, a bar for each attempt, losses and moves. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coordinator.axes import Scale, drawing, shortened, text, time_ticks, tip
from coordinator.history import DONE, LOSSES, MOVED, UNHURT, History, Span
from coordinator.machine_lines import duration
from coordinator.page import Html, escaped

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 1000, 150, 26, 24, 26
_LANE, _THIN_LANE, _MANY_LANES = 20, 15, 40
_NAME_CHARACTERS, _CHARACTER = 20, 6.1  # pixels of one, about
Named = Callable[[str], tuple[str, str]]
"""A task's name and its kind (teacher / student / other), by its id."""


@dataclass(frozen=True)
class _Lanes:
    """Where the slots lie, from above."""

    places: dict[tuple[str, int], float]
    height: float

    @property
    def bottom(self) -> float:
        return _TOP + len(self.places) * self.height


def timeline(history: History, named: Named) -> Html:
    """All attempts of a run. Nothing where nothing was started."""
    if not history.spans:
        return Html("")
    lanes = _lanes(history)
    across = Scale(0.0, max(history.seconds, 1e-3), _LEFT, _WIDTH - _RIGHT)
    parts = [*_ground(history, lanes, across), *_names(history, lanes)]
    parts += [_bar(span, named, lanes, across) for span in history.spans]
    parts += _moves(history.spans, lanes, across)
    parts += [_end(span, named, lanes, across) for span in history.spans if span.ending not in UNHURT]
    for mark in history.marks:
        tops = [top for (machine, _), top in lanes.places.items() if machine == mark.machine]
        if mark.lost and tops:
            x, low, high = across(mark.at), min(tops), max(tops) + lanes.height
            words = tip(f"{mark.machine} {mark.words}, at {duration(mark.at)}")
            parts.append(f'<path class="lost" d="M{x:.1f} {low:.1f}V{high:.1f}">{words}</path>')
    size = (_WIDTH, round(lanes.bottom + _BOTTOM))
    label = f"{len(history.spans)} attempts on {len(history.hosts)} machines in {duration(history.seconds)}"
    return drawing(size, label, parts, "timeline")


def _lanes(history: History) -> _Lanes:
    """One lane a slot: machines as they came; what only leads (the driver) has one where it worked."""
    worked = dict.fromkeys((span.machine, span.slot) for span in history.spans)
    slots: dict[tuple[str, int], None] = {}
    for machine, host in history.hosts.items():
        if "train" in host.joined.kinds:
            slots |= dict.fromkeys((machine, slot) for slot in range(host.joined.slots))
    slots |= worked  # also slots that a machine had when it was here before
    order = {machine: place for place, machine in enumerate(dict.fromkeys(machine for machine, _ in slots))}
    height = _THIN_LANE if len(slots) > _MANY_LANES else _LANE
    ordered = sorted(slots, key=lambda place: (order[place[0]], place[1]))
    return _Lanes({slot: _TOP + number * height for number, slot in enumerate(ordered)}, height)


def _ground(history: History, lanes: _Lanes, across: Scale) -> list[str]:
    """What lies under the bars: when machines were here, the hours, where another command began."""
    parts = []
    for (machine, _), top in lanes.places.items():
        for begin, end in history.hosts[machine].here if machine in history.hosts else ():
            x, width = across(begin), across(end) - across(begin)
            parts.append(_rectangle("here", (x, top + 1), (width, lanes.height - 2), ""))
    for at, words in time_ticks(history.seconds, 8):
        x = across(at)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{lanes.bottom:.1f}"/>')
        parts.append(text(x, lanes.bottom + 16, words, "middle"))
    for number, drive in enumerate(history.drives[1:], start=2):
        x, words = across(drive.begin), tip(f"command {number} begins; the time since the one before is left out")
        line = f'<path class="command" d="M{x:.1f} {_TOP - 6}V{lanes.bottom:.1f}"/>'
        parts.append(f"<g>{words}{line}{text(x, _TOP - 10, str(number), 'middle')}</g>")
    return parts


def _names(history: History, lanes: _Lanes) -> list[str]:
    several = {machine for machine, slot in lanes.places if slot > 0}
    parts = []
    for (machine, slot), top in lanes.places.items():
        number = f" {slot}" if machine in several else ""
        words = shortened(machine, _NAME_CHARACTERS - len(number)) + number
        shown = text(_LEFT - 8, top + lanes.height / 2 + 4, words, "end")
        parts.append(f"<g>{tip(f'{machine}, slot {slot}')}{shown}</g>")
    return parts


def _bar(span: Span, named: Named, lanes: _Lanes, across: Scale) -> str:
    name, kind = named(span.task)
    top, x = lanes.places[span.machine, span.slot], across(span.begin)
    width = max(1.5, across(span.end) - x - 0.6)  # a line of ground between two that follow one another
    words = tip(f"{name}, attempt {span.attempt}, on {span.machine}: {_story(span)}")
    parts = [_rectangle(f"bar {kind}", (x, top + 2), (width, lanes.height - 4), words)]
    short = next((part for part in _shorter(name) if len(part) * _CHARACTER + 8 <= width), "")
    if short:
        parts.append(text(x + 5, top + lanes.height / 2 + 3.5, short, "start", "on-bar"))
    return "<g>" + "".join(parts) + "</g>" if short else parts[0]


def _shorter(name: str) -> Sequence[str]:
    """`student/b4/fold12`, then what is left when its kind goes, then its last part, then its number."""
    parts = name.split("/")
    return (name, "/".join(parts[1:]), parts[-1], parts[-1].removeprefix("fold"))


def _end(span: Span, named: Named, lanes: _Lanes, across: Scale) -> str:
    """A cross where an attempt was lost or failed."""
    x, y, arm = across(span.end), lanes.places[span.machine, span.slot] + lanes.height / 2, 4
    kind = "cross" if span.ending in LOSSES else "cross failed"
    cross = f"M{x - arm:.1f} {y - arm:.1f}l{2 * arm} {2 * arm}M{x - arm:.1f} {y + arm:.1f}l{2 * arm} {-2 * arm}"
    return f'<path class="{kind}" d="{cross}">{tip(f"{named(span.task)[0]}: {_story(span)}")}</path>'


def _moves(spans: Sequence[Span], lanes: _Lanes, across: Scale) -> list[str]:
    """A thread from where a fold left a machine to where it went on."""
    parts, middle = list[str](), lanes.height / 2
    following_of = dict[str, Span]()
    for span in reversed(spans):
        following, following_of[span.task] = following_of.get(span.task), span
        if span.ending != MOVED or following is None:
            continue
        x, y = across(span.end), lanes.places[span.machine, span.slot] + middle
        to_x, to_y = across(following.begin), lanes.places[following.machine, following.slot] + middle
        words = tip(f"moved from {span.machine} to {following.machine}, at {duration(span.end)}")
        arm = (to_x - x) / 2
        path = f"M{x:.1f} {y:.1f}C{x + arm:.1f} {y:.1f} {to_x - arm:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
        parts.append(f'<path class="move" d="{path}">{words}</path>')
        parts.append(f'<circle class="move-end" cx="{to_x:.1f}" cy="{to_y:.1f}" r="2.5">{words}</circle>')
    return parts


def _story(span: Span) -> str:
    first, last = span.epochs or (0, 0)
    epochs = f", epochs {first + 1} to {last}" if last > first else ""
    ended = span.ending + (f" ({span.what})" if span.what and span.ending != DONE else "")
    return f"{duration(span.begin)} to {duration(span.end)}{epochs}, {ended}"


def _rectangle(kind: str, corner: tuple[float, float], size: tuple[float, float], words: str) -> str:
    place = f'x="{corner[0]:.1f}" y="{corner[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}"'
    return f'<rect class="{escaped(kind)}" {place} rx="2">{words}</rect>'
