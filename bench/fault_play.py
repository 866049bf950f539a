"""One seed of bench.simulate, played and held against the invariants; and the mutants, which must fail."""

from __future__ import annotations

import hashlib
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.fault_audit import Audit, ViolationError
from bench.fault_cases import draw
from coordinator.entries import Attempt
from coordinator.events import ORDERS, Event
from coordinator.leaks import check_leaks
from coordinator.ledger import Ledger
from coordinator.replay import replay
from coordinator.simulated_drivers import FaultySimulation
from coordinator.simulated_store import SimulatedCommit, SimulatedStore

_REPLAYED = 3  # one seed of so many: a replay costs a third of the run itself


class CredulousLedger(Ledger):
    """Without fencing: news of any attempt is news of the one that runs."""

    def _believed(self, task: str, attempt: int) -> Attempt | None:
        return self.running.get(task)


class OverwritingStore(SimulatedStore):
    """Without put-if-absent: the last who writes wins."""

    def put_commit(self, task: str, number: int, commit: SimulatedCommit) -> SimulatedCommit:
        chain = self.commits.setdefault(task, [])
        chain[number - 1 : number] = [commit]
        return commit

    def put_result(self, task: str, writer: int) -> int:
        self.results[task] = writer
        return writer


@dataclass(frozen=True)
class Setup:
    """What stands in for the real parts, and whether graphs with leaks are refused."""

    ledger: type[Ledger] = Ledger
    store: type[SimulatedStore] = SimulatedStore
    leak_rule: bool = True


WITHOUT = {
    "": Setup(),
    "fencing": Setup(ledger=CredulousLedger),
    "put-if-absent": Setup(store=OverwritingStore),
    "leak-rule": Setup(leak_rule=False),
}


@dataclass
class Report:
    """What became of one seed."""

    seed: int
    violation: ViolationError | None = None
    happened: Counter[str] = field(default_factory=Counter)
    trace: str = ""  # hash of all that coordinators were told and ordered


def play(seed: int, without: str = "", show: Callable[[int, float, Event], None] | None = None) -> Report:
    """Draw and play one seed. Violations are in the report; `show` sees every event."""
    setup, drawn, report = WITHOUT[without], draw(seed), Report(seed)
    if drawn.is_wrong:
        report.happened["graphs with a leak"] += 1
    if setup.leak_rule:
        try:
            check_leaks(list(drawn.scenario.graph.tasks.values()), drawn.folds, drawn.nested)
        except AssertionError as error:
            report.happened["graphs refused"] += 1
            if not drawn.is_wrong:
                report.violation = ViolationError("an honest graph is not refused", 0.0, str(error))
            return report
    store = setup.store()
    audit = Audit(drawn.scenario, drawn.faults, store)

    def watch(number: int, at: float, event: Event, ledger: Ledger) -> None:
        audit.watch(number, at, event, ledger)
        if show is not None:
            show(number, at, event)

    simulation = FaultySimulation(drawn.scenario, drawn.faults, audit, watch, ledger=setup.ledger, store=store)
    try:
        simulation.play()
        if simulation.finished is None:
            stories = [d.ledger.story(task) for d in simulation.fleet.drivers for task in drawn.scenario.graph.tasks]
            audit.fail("the run ends", "\n".join(stories))
        if seed % _REPLAYED == 0:
            _replay(audit, setup)
    except ViolationError as violation:
        report.violation = violation
    except Exception as error:  # noqa: BLE001 - whatever breaks is a finding, with its seed
        where = traceback.format_exc(limit=-4)
        report.violation = ViolationError("nothing breaks", simulation.calendar.now, f"{error!r}\n{where}")
    report.happened += simulation.fleet.happened
    _count(report, simulation, audit)
    return report


def _replay(audit: Audit, setup: Setup) -> None:
    """Every coordinator's facts, told to a fresh ledger and plan, give its orders again."""
    if setup.ledger is not Ledger:
        return
    for number, book in audit.books.items():
        differences = replay(audit.scenario.graph, audit.scenario.rules, book.events)
        if differences:
            audit.fail("the same facts give the same orders", f"coordinator {number}: {differences[0]}")


def _count(report: Report, simulation: FaultySimulation, audit: Audit) -> None:
    digest, events = hashlib.sha256(), 0
    for book in audit.books.values():
        for event in book.events:
            digest.update(repr(event).encode())
            if isinstance(event, ORDERS):
                report.happened[f"order: {type(event).__name__}"] += 1
        events += len(book.events)
    machines = audit.scenario.machines
    liars = [m for m in machines if m.told_memory_gb is not None or m.told_speed not in (None, m.speed)]
    report.happened["machines that lie"] += len(liars)
    report.happened["jumps of the clock"] += len(audit.faults.clock)
    report.trace = digest.hexdigest()
    report.happened["events"] += events
    report.happened["attempts"] += simulation.fleet.starts
    report.happened["coordinators"] += simulation.begun
    report.happened[f"ended: {simulation.finished}"] += 1
