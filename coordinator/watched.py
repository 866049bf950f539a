"""What a person is shown of a run, gathered from its events: newest numbers, lost machines, best scores. Pure.

`Watched` is told every event right after the ledger took it in. It makes the rows of `display.py`: no more of them than
find room, so that a screen costs what it shows and not what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.display import CHROME, FOLDS, Display, Row, Rows, bar
from coordinator.entries import Attempt, Entry, State
from coordinator.events import Event, MachineCut, MachineJoined, MachineLeft, Progressed, Start
from coordinator.ledger import Ledger
from coordinator.machine_lines import duration, share_of_best
from coordinator.slots import Host
from coordinator.tally import Tally, tally
from workers.tasks import Progress, TrainTask

_SILENT_SECONDS = 90.0  # a fold that works is heard of every few seconds
_DRIVER_KINDS = ("search",)
_FEWEST_ROWS = 2  # a terminal without room for a machine and a fold has no tables
_STYLES = {State.RUNNING: "", State.FAILED: "red", State.ENDED: "yellow"}


@dataclass(frozen=True)
class Lost:
    """A machine that is out of reach, since when, and why."""

    joined: MachineJoined
    since: float
    why: str


@dataclass(frozen=True)
class Score:
    """The best mean AP of a fold and its epoch."""

    mean_ap: float
    epoch: int


class Watched:
    """Beside the ledger, which does not hear of every report."""

    def __init__(self) -> None:
        self.newest: dict[str, Progress] = {}
        self.best: dict[str, Score] = {}
        self.lost: dict[str, Lost] = {}
        self._of_other_days: set[str] = set()  # folds that have commits, and were not heard of yet
        self._heard: dict[str, float] = {}
        self._known: dict[str, MachineJoined] = {}
        self._tallied: Counter[State] = Counter()
        self._last_tally = Tally((), (), (), 0, 0)

    def take(self, event: Event, ledger: Ledger) -> None:
        match event:
            case Progressed(progress):
                self._progressed(progress, ledger)
            case Start(task):
                self._heard[task] = ledger.now
            case MachineJoined(machine, kinds=kinds) if tuple(kinds) != _DRIVER_KINDS:
                self._known[machine] = event
                self.lost.pop(machine, None)
            case MachineCut(machine, why) if machine in self._known:
                self.lost[machine] = Lost(self._known[machine], ledger.now, why)
            case MachineLeft(machine):
                self._known.pop(machine, None)

    def stands(self, task: str, epoch: int, epochs: int, best: Score | None, *, done: bool = False) -> None:
        """What the store holds of a task of which no report was heard: its result, or its newest commit."""
        if not done and task not in self.newest:
            self._of_other_days.add(task)
        if done or task not in self.newest:
            share = epochs if done else epoch
            score = None if best is None else best.mean_ap
            self.newest[task] = Progress(task, 0, epoch, epochs, share, max(1, epochs), mean_ap=score)
            if best is not None:
                self.best[task] = best

    def _progressed(self, progress: Progress, ledger: Ledger) -> None:
        running = ledger.running.get(progress.task)
        if running is None or running.number != progress.attempt:
            return  # from an attempt that counts no more
        self._heard[progress.task] = ledger.now
        if not progress.steps and progress.says_nothing:
            return
        known = self.newest.get(progress.task)
        self.newest[progress.task] = progress
        if progress.mean_ap is not None and (known is None or known.epoch != progress.epoch):
            best = self.best.get(progress.task)
            is_best = progress.best_epoch in (None, progress.epoch)  # a fold that goes on had others before
            if is_best and (best is None or progress.mean_ap > best.mean_ap):
                self.best[progress.task] = Score(progress.mean_ap, progress.epoch)

    def screen(self, ledger: Ledger, sentences: Sequence[str], lines: int | None = None) -> Display:
        """The rows for a screen of so many lines; None: all of them."""
        room = None if lines is None else lines - CHROME - len(sentences) - 2
        if room is not None and room < _FEWEST_ROWS:
            return Display(Rows(()), Rows(()), self._tally(ledger).stages, self._done(ledger), sentences)
        machines = len(ledger.slots.hosts) + len(self.lost)
        for_machines = None if room is None else min(machines, max(1, room // 3, room - len(ledger.entries)))
        shown = self._machines(ledger, for_machines)
        for_folds = None if room is None else max(1, room - len(shown.rows))
        return Display(shown, self._folds(ledger, for_folds), self._tally(ledger).stages, self._done(ledger), sentences)

    def _tally(self, ledger: Ledger) -> Tally:
        """Counted anew only when a task has changed its state."""
        if self._tallied != ledger.counts:
            self._tallied, self._last_tally = Counter(ledger.counts), tally(ledger)
        return self._last_tally

    def _done(self, ledger: Ledger) -> float:
        """Share of all training that is done."""
        known = self._tally(ledger)
        begun = ((name, ledger.entries[name]) for name in {*ledger.running, *known.urgent, *self._of_other_days})
        open_folds = ((name, e) for name, e in begun if isinstance(e.task, TrainTask) and e.state is not State.DONE)
        part = sum(self._share(name, entry) for name, entry in open_folds)
        return (known.folds_done + part) / max(1, known.folds)

    def _share(self, name: str, entry: Entry) -> float:
        """Of a fold, done: with its result all of it, however many epochs it took."""
        progress = self.newest.get(name) or entry.progress
        if entry.state is State.DONE or progress is None or not progress.steps:
            return float(entry.state is State.DONE)
        return min(1.0, max(progress.step / progress.steps, progress.epoch / max(1, progress.epochs)))

    def _machines(self, ledger: Ledger, room: int | None) -> Rows:
        works: dict[str, list[tuple[str, Attempt]]] = {}
        for task, attempt in ledger.running.items():
            works.setdefault(attempt.machine, []).append((task, attempt))
        hosts = {name: host for name, host in ledger.slots.hosts.items() if tuple(host.joined.kinds) != _DRIVER_KINDS}
        names = [*self.lost, *hosts]
        if room is not None and len(names) > room:
            closed = [name for name in hosts if not ledger.slots.open(name)]
            busy = [name for name in hosts if name in works and ledger.slots.open(name)]
            names = list(dict.fromkeys([*self.lost, *closed, *busy, *hosts]))
        shown = names if room is None else names[:room]
        rows = [
            self._lost(name, ledger)
            if name in self.lost
            else self._machine(name, hosts[name], works.get(name, []), ledger)
            for name in shown
        ]
        rest = Counter("at work" if name in works else "idle" for name in names[len(shown) :] if name in hosts)
        rest.update({"lost": sum(name in self.lost for name in names[len(shown) :])})
        return Rows(rows, {kind: count for kind, count in rest.items() if count})

    def _lost(self, name: str, ledger: Ledger) -> Row:
        lost = self.lost[name]
        since = f"for {duration(ledger.now - lost.since)}" + (f": {lost.why}" if lost.why else "")
        return Row((name, _card(lost.joined), "lost", since, "", "", "", "cut"), "red")

    def _machine(self, name: str, host: Host, works: Sequence[tuple[str, Attempt]], ledger: Ledger) -> Row:
        reports = [self.newest[task] for task, _ in works if task in self.newest]
        state, style = _state_of(name, host, ledger, bool(works))
        speeds = [one.images_per_second for one in reports if one.images_per_second is not None]
        memory = [one.gpu_memory_gb for one in reports if one.gpu_memory_gb is not None]
        warmth = [one.temperature_celsius for one in reports if one.temperature_celsius is not None]
        link = host.joined.link_mb_per_second
        names = sorted(ledger.entries[task].task.name for task, _ in works)
        tasks = ", ".join(names[:2]) + (f" + {len(names) - 2}" if len(names) > 2 else "")
        why = ledger.slots.quarantine[name].why if name in ledger.slots.quarantine else ""
        cells = (
            name,
            _card(host.joined),
            state,
            tasks or why,
            f"{sum(speeds):.1f}" if speeds else "",
            f"{max(memory):.1f}" if memory else "",
            f"{max(warmth):.0f}" if warmth else "",
            f"{link:.3g} MB/s" if link is not None else "",
        )
        return Row(cells, style)

    def _folds(self, ledger: Ledger, room: int | None) -> Rows:
        """Running tasks first, then what failed or waits to be tried again, then the other folds; the rest counted."""
        known = self._tally(ledger)
        running = sorted(ledger.running, key=lambda name: ledger.entries[name].task.name)
        names = [*running, *known.urgent, *known.others]
        shown = names if room is None else names[:room]
        rest = Counter(_words(ledger.entries[name].state) for name in names[len(shown) :])
        return Rows([self._fold(name, ledger) for name in shown], rest)

    def _fold(self, name: str, ledger: Ledger) -> Row:
        entry, attempt = ledger.entries[name], ledger.running.get(name)
        progress = self.newest.get(name) or entry.progress
        best, best_epoch = self.best.get(name), None if progress is None else progress.best_epoch
        state, style = self._fold_state(name, entry, attempt, ledger)
        cells = [entry.task.name, state, "" if attempt is None else attempt.machine]
        if progress is None or not progress.epochs:
            return Row((*cells, *[""] * (len(FOLDS) - len(cells))), style)
        left = progress.seconds_left if attempt is not None else None
        cells += [
            f"{progress.epoch}/{progress.epochs}",
            bar(self._share(name, entry), 8),
            "" if progress.loss is None else f"{progress.loss:.3f}",
            "" if progress.mean_ap is None else f"{progress.mean_ap:.3f}",
            f"{best.mean_ap:.3f} @{best.epoch}" if best is not None else f"@{best_epoch}" if best_epoch else "",
            "" if left is None else duration(left),
        ]
        return Row(tuple(cells), style)

    def _fold_state(self, name: str, entry: Entry, attempt: Attempt | None, ledger: Ledger) -> tuple[str, str]:
        progress = self.newest.get(name)
        if attempt is None:
            begun = progress is not None and progress.epoch > 0 and entry.state in (State.READY, State.WAITING)
            return _words(State.ENDED if begun else entry.state), _STYLES.get(entry.state, "dim")
        silent = ledger.now - self._heard.get(name, attempt.started)
        if silent >= _SILENT_SECONDS:
            return f"silent {duration(silent)}", "yellow"
        if attempt.told_to_stop:
            target = ledger.slots.targets.get(name)
            return ("stopping" if target is None else f"to {target[0]}"), "cyan"
        return "running", ""


def _words(state: State) -> str:
    return {State.ENDED: "waits to go on", State.READY: "waiting"}.get(state, str(state))


def _state_of(name: str, host: Host, ledger: Ledger, works: bool) -> tuple[str, str]:
    if host.draining_until is not None:
        return f"leaves in {duration(max(0.0, host.draining_until - ledger.now))}", "yellow"
    if name in ledger.slots.quarantine:
        return "probed" if host.probing else "quarantine", "yellow"
    share = share_of_best(name, ledger) if works else None
    if share is not None:
        return f"at {share:.0%} of its best", "yellow"
    return ("training", "") if works else ("idle", "dim")


def _card(machine: MachineJoined) -> str:
    memory = f" {machine.memory_gb:.1f} GB" if machine.memory_gb is not None and machine.gpu else ""
    many = f"{machine.slots} x " if machine.slots > 1 else ""
    return f"{many}{'GPU' if machine.gpu else 'CPU'}{memory}"
