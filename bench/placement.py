"""How close to the optimum folds are placed, beside how others place them: ratios to a lower bound, in one run.

    python -m bench.placement [--seeds 100000-100019] [--only three,seven,hundred,wide] [--json]
    python -m bench.placement --dump-bound           the bound of one case, to be checked by hand
    python -m bench.placement --scale                1,000 machines x 5,000 folds: a decision, all of it, its growth

Everything is simulated with the real ledger, plan and estimates (coordinator/simulate.py). The rules' numbers were
tuned on seeds below 100000. The bound knows early stops and deaths in advance and moves folds for nothing: 1.00 is out
of reach. Hundred machines take a tenth of the seeds.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.placement_cases import EPOCH_SECONDS, PATIENCE, Case, draw, graph_of, lower_bound
from bench.placement_peers import Assigned, ForgetfulStore, hand_schedule, heft, queue
from coordinator.events import Order
from coordinator.graph import Graph
from coordinator.ledger import Ledger
from coordinator.plan import plan
from coordinator.simulate import Planner, Simulation
from coordinator.simulated_store import SimulatedStore

THREE, SEVEN = (1.15, 1.0, 0.5), (1.3, 1.15, 1.0, 1.0, 0.8, 0.5, 0.35)
HUNDRED = tuple(SEVEN[i % 7] for i in range(100))
BARS = {"three": (1.05, 1.05), "seven": (1.10, 1.15), "hundred": (1.10, 1.12)}  # without and with deaths


def _peers() -> dict[str, tuple[Planner, type[SimulatedStore]]]:
    return {
        "foldfleet": (plan, SimulatedStore),
        "by hand": (Assigned(hand_schedule), ForgetfulStore),
        "queue": (queue, ForgetfulStore),
        "queue+resume": (queue, SimulatedStore),
        "HEFT": (Assigned(heft), SimulatedStore),
    }


PEERS = tuple(_peers())


@dataclass(frozen=True)
class Row:
    """Ratios of one case and seed, by who placed the folds; and how often ours started one."""

    case: Case
    ratios: dict[str, float]
    starts: int


def cases() -> list[Case]:
    """Fleets, each with cheap and dear moves, without and with deaths; then early stops anywhere from epoch 12 on."""
    fleets = (Case("three", THREE), Case("seven", SEVEN), Case("hundred", HUNDRED, groups=50))
    found = [
        replace(fleet, move_epochs=move, deaths=deaths)
        for fleet in fleets
        for move in (0.15, 1.0)
        for deaths in (False, True)
    ]
    wide = [replace(fleet, widest=True, deaths=deaths) for fleet in fleets[:2] for deaths in (False, True)]
    return [*found, *(replace(case, name=f"{case.name} wide") for case in wide)]


@lru_cache(maxsize=4)
def _graph(groups: int, patience: int) -> Graph:
    return graph_of(groups, patience)


def measure(task: tuple[Case, int]) -> Row:
    """One case under one seed, placed by everybody."""
    case, seed = task
    drawn = draw(case, seed, _graph(case.groups, 8 if case.widest else PATIENCE))
    bound = lower_bound(drawn).epochs * EPOCH_SECONDS
    ratios, starts = {}, 0
    for name, (planner, store) in _peers().items():
        played = Simulation(drawn.scenario, planner, store=store).play()
        assert played.ledger.all_done, f"{case.name}, seed {seed}: {name} did not end"
        ratios[name] = played.makespan / bound
        starts = played.starts if name == "foldfleet" else starts
    return Row(case, ratios, starts)


def table(rows: Sequence[Row]) -> list[dict[str, object]]:
    """A line for every case: mean ratios, ours against its bar."""
    lines: list[dict[str, object]] = []
    for case in dict.fromkeys(row.case for row in rows):
        mine = [row for row in rows if row.case == case]
        bars = BARS.get(case.name)
        lines.append(
            {
                "machines": case.name,
                "move": case.move_epochs,
                "deaths": "yes" if case.deaths else "no",
                **{name: statistics.mean(row.ratios[name] for row in mine) for name in PEERS},
                "bar": None if bars is None else bars[case.deaths],
                "starts": statistics.mean(row.starts for row in mine),
                "seeds": len(mine),
            }
        )
    return lines


def show(lines: Sequence[dict[str, object]]) -> None:
    """The table, within 100 columns."""
    view = Table(box=None, title="mean makespan / lower bound", title_justify="left")
    for name in lines[0]:
        view.add_column(name, justify="left" if name == "machines" else "right")
    for line in lines:
        view.add_row(*(_cell(name, value) for name, value in line.items()))
    Console(width=100).print(view)


def _cell(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if name in PEERS else f"{value:g}"
    return "-" if value is None else str(value)


def dump_bound(seed: int) -> None:
    """Three machines, one death-free case: what goes into its bound, and every part of it."""
    case = Case("three", THREE)
    drawn = draw(case, seed, _graph(1, PATIENCE))
    print(f"seed {seed}; machines of speed {case.speeds}, {sum(case.speeds):g} together; epochs by fold:")
    print(f"  teachers {drawn.teachers[0]}, {sum(drawn.teachers[0]):g} in all")
    print(f"  students {drawn.students[0]}, {sum(drawn.students[0]):g} in all")
    bound = lower_bound(drawn)
    for what, end in bound.why:
        print(f"  {what}: {end:.3f}")
    print(f"the bound is the largest: {bound.epochs:.3f} epochs of the machine of speed 1")
    print("by hand: all work is the sum of both over the speeds together; the k longest teachers over the k fastest")
    print("machines, the largest of k = 1 to 5, is when all are taught; likewise then the students but the best one")


class Timed:
    """The plan, with the seconds and the orders of each time it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, int]] = []

    def __call__(self, ledger: Ledger) -> list[Order]:
        began = time.perf_counter()
        orders = plan(ledger)
        self.asked.append((time.perf_counter() - began, len(orders)))
        return orders


def scale() -> None:
    """Decisions, seconds and memory of large fleets: 35 epochs a fold, a commit an epoch.

    Python's collector is off, as in timeit: its pauses (0.2 s at the end) would pass for the longest decisions.
    """
    gc.disable()
    took: dict[int, float] = {}
    for machines, groups in ((100, 50), (1000, 500)):
        case = Case("scale", tuple(SEVEN[i % 7] for i in range(machines)), groups=groups, commit_share=1.0, noise=0.03)
        drawn = draw(case, 100_000, graph_of(groups, EPOCHS_WITHOUT_STOP))
        timed, began = Timed(), time.process_time()
        played = Simulation(drawn.scenario, timed).play()
        took[groups] = time.process_time() - began
        assert played.ledger.all_done
        asked = sorted(timed.asked)
        mean, high = statistics.mean(seconds for seconds, _ in asked) * 1e3, asked[int(len(asked) * 0.999)][0] * 1e3
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(f"{machines} machines x {groups * 10} folds: {took[groups]:.1f} s of CPU, {played.events} events;")
        print(f"  a decision {mean:.3f} ms in the mean, {high:.3f} ms at the 99.9th percentile,", end=" ")
        print(f"{asked[-1][0] * 1e3:.1f} ms at most (for {asked[-1][1]} orders); {memory:.2f} GB", flush=True)
    print(f"growth from 500 to 5,000 folds: x {took[500] / took[50]:.1f} (n log n: x {10 * 1.37:.1f})")


EPOCHS_WITHOUT_STOP = 26


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="100000-100019")
    parser.add_argument("--only", default="", help="names of machines, with commas between")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dump-bound", action="store_true")
    parser.add_argument("--scale", action="store_true")
    chosen = parser.parse_args()
    first, _, last = chosen.seeds.partition("-")
    if chosen.dump_bound:
        dump_bound(int(first))
    elif chosen.scale:
        scale()
    else:
        names = chosen.only.split(",") if chosen.only else None
        wanted = [case for case in cases() if names is None or case.name.split()[0] in names]
        seeds = range(int(first), int(last or first) + 1)
        tenth = seeds[: max(1, len(seeds) // 10)]
        tasks = [(case, seed) for case in wanted for seed in (tenth if case.groups > 1 else seeds)]
        with ProcessPoolExecutor(2) as pool:
            rows = list(track(pool.map(measure, tasks), "placing", len(tasks), console=Console(stderr=True)))
        lines = table(rows)
        print(json.dumps(lines, indent=2)) if chosen.json else show(lines)


if __name__ == "__main__":
    main()
