"""The report's part on the fleet: who trained what when, what was lost, which machines there were. Pure."""

from __future__ import annotations

from collections import defaultdict

from coordinator.history import LOSSES, MOVED, UNHURT, History, Host
from coordinator.known import Known
from coordinator.machine_lines import duration
from coordinator.page import Html, bullets, folded, key, section, table, tag
from coordinator.timeline_chart import timeline
from workers.tasks import Failure, TrainTask

_LISTED = 40


def fleet(known: Known, history: History) -> Html:
    """Nothing before anything was started."""
    if known.journal_trouble:
        told = f"The journal of this run is not understood, so nothing is told of its machines: {known.journal_trouble}"
        return section("The fleet", tag("p", told))
    if not history.spans:
        return Html("")
    lost = [span for span in history.spans if span.ending in LOSSES]
    failed = [span for span in history.spans if span.ending not in UNHURT and span.ending not in LOSSES]
    moved, gave_way = (sum(span.ending == ending for span in history.spans) for ending in (MOVED, Failure.STOPPED))
    commands = len(history.drives)
    told = (
        f"{_count(len(history.spans), 'attempt')} in {duration(history.seconds)}"
        + (f" of {commands} commands (numbered lines; the time between them is left out)" if commands > 1 else "")
        + f": {len(lost)} lost, {len(failed)} failed, {moved} moved, "
        f"{gave_way} stopped at a commit. A bar's story is told where the pointer rests on it."
    )
    return section(
        "The fleet",
        tag("p", told, kind="soft"),
        tag(
            "p",
            *_keys({_named(known, span.task)[1] for span in history.spans}, bool(lost), bool(failed), bool(moved)),
            kind="soft keys",
        ),
        tag("div", timeline(history, lambda task: _named(known, task)), kind="wide"),
        _troubles(known, history),
        tag("h3", "Machines"),
        _machines(known, history),
    )


def gave_up(known: Known, history: History) -> list[str]:
    """Why the last command left tasks without a result, a sentence each; nothing where it did not, or nobody knows."""
    if not history.drives:
        return []
    last = history.drives[-1]
    reasons = [why for task, why in last.gave_up.items() if task not in known.results]
    if last.stopped and not reasons:
        reasons.append("Somebody asked it to stop; finished and committed work is kept.")
    return list(dict.fromkeys(reasons))


def _keys(kinds: set[str], lost: bool, failed: bool, moved: bool) -> list[Html]:
    """What the colours and signs of the timeline stand for."""
    words = {"teacher": "teacher", "student": "student", "other": "labels, search, bundle, predictions"}
    bars = {kind: f'<rect class="bar {kind}" width="26" height="8" rx="2"/>' for kind in words if kind in kinds}
    keys = [key(bar, words[kind]) for kind, bar in bars.items()]
    keys += [key('<path class="cross" d="M9 0l8 8M9 8l8-8"/>', "lost")] if lost else []
    keys += [key('<path class="cross failed" d="M9 0l8 8M9 8l8-8"/>', "failed")] if failed else []
    keys += [key('<path class="move" d="M0 7C10 7 12 1 22 1"/>', "moved")] if moved else []
    return keys


def _named(known: Known, task: str) -> tuple[str, str]:
    """A task's name and kind. One of an earlier configuration is known by its id alone, which begins with its name."""
    found = known.tasks.get(task)
    name = found.name if found is not None else f"{task.rsplit('-', 1)[0].replace('-', '/', 1)} (earlier)"
    kind = name.split("/")[0]
    return name, kind if kind in ("teacher", "student") else "other"


def _troubles(known: Known, history: History) -> Html:
    """Everything that went wrong, in order of time."""
    found = [
        (span.end, f"{_named(known, span.task)[0]}, attempt {span.attempt} on {span.machine}: {span.ending}", span.what)
        for span in history.spans
        if span.ending not in UNHURT
    ]
    found += [(mark.at, f"{mark.machine} {mark.words}", "") for mark in history.marks]
    if not found:
        return Html("")
    lines = [f"{duration(at)}: {words}" + (f" ({what})" if what else "") for at, words, what in sorted(found)]
    more = [f"and {len(lines) - _LISTED} more, see events.jsonl"] if len(lines) > _LISTED else []
    return folded(f"{_count(len(lines), 'trouble')}, losses among them", bullets([*lines[:_LISTED], *more]))


def _machines(known: Known, history: History) -> Html:
    busy, counts, lost = defaultdict[str, float](float), defaultdict[str, int](int), defaultdict[str, int](int)
    for span in history.spans:
        task = known.tasks.get(span.task)
        busy[span.machine] += span.end - span.begin
        counts[span.machine] += isinstance(task, TrainTask) or task is None
        lost[span.machine] += span.ending in LOSSES
    rows = [
        [
            name,
            *_offer(host),
            counts[name],
            _whole(duration(busy[name])),
            f"{busy[name] / here:.0%}" if here else "-",
            lost[name],
        ]
        for name, host in history.hosts.items()
        if TrainTask.kind in host.joined.kinds  # the driver only searches
        and ((here := sum(end - begin for begin, end in host.here) * host.joined.slots) or counts[name])
    ]
    head = ["machine", "slots", "on", "memory each", "speed", "system", "folds tried", "worked", "of its time", "lost"]
    return table(head, rows)


def _whole(words: str) -> Html:
    return tag("span", words, kind="whole")


def _offer(host: Host) -> list[object]:
    """What a machine said of itself; a dash for what is not known."""
    joined_as = host.joined
    memory = _whole("-" if joined_as.memory_gb is None else f"{joined_as.memory_gb:.1f} GB")
    speed = "-" if joined_as.speed is None else f"{joined_as.speed:.3g}"
    words = ", ".join([joined_as.system, *joined_as.labels] if joined_as.system else joined_as.labels)
    return [joined_as.slots, "GPU" if joined_as.gpu else "CPU", memory, speed, words or "-"]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)
