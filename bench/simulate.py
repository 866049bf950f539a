"""Runs under every fault at once, each from one integer, held against what must be true whatever happens.

    python -m bench.simulate --seeds 0-4999            a line for every violation, then what happened how often
    python -m bench.simulate --seeds 0-499 --without fencing        (put-if-absent, leak-rule): it must be found
    python -m bench.simulate --trace 17                all that coordinators were told and ordered under one seed

Exit code 1 where anything was violated. The real ledger, plan, estimates and retries run; machines, attempts and the
store are models (coordinator/simulated_*.py). bench/fault_audit.py says what is checked.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from bench.fault_play import WITHOUT, Report, play
from coordinator.events import Event, Tick

_PROCESSES = 2
_PROGRESS_SECONDS = 2.0


def trace(seed: int, without: str) -> Report:
    """Every event of a seed, printed."""

    def show(number: int, at: float, event: Event) -> None:
        if not isinstance(event, Tick):
            print(f"{at:12.1f}  coordinator {number}  {event}")

    report = play(seed, without, show)
    if report.violation is not None:
        print(f"{report.violation}")
    return report


def many(seeds: range, without: str) -> list[Report]:
    """All seeds, in several processes, with progress where people look."""
    reports: list[Report] = []
    told = time.monotonic()
    with ProcessPoolExecutor(_PROCESSES) as pool:
        for report in pool.map(partial(play, without=without), seeds, chunksize=8):
            reports.append(report)
            if report.violation is not None:
                first = report.violation.story.splitlines()[0]
                print(
                    f"seed {report.seed}, at {report.violation.at:.1f} s: {report.violation.invariant}: {first}",
                    flush=True,
                )
            if sys.stderr.isatty() and time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                print(f"\r{len(reports)} of {len(seeds)}", end="", file=sys.stderr, flush=True)
    return reports


def summary(reports: list[Report]) -> str:
    happened: Counter[str] = Counter()
    for report in reports:
        happened += report.happened
    violations = sum(report.violation is not None for report in reports)
    lines = [f"  {count:9,}  {what}" for what, count in sorted(happened.items())]
    return "\n".join([f"{len(reports):,} seeds, {violations:,} violations", *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-4999")
    parser.add_argument("--without", default="", choices=list(WITHOUT))
    parser.add_argument("--trace", type=int, metavar="SEED")
    chosen = parser.parse_args()
    if chosen.trace is not None:
        return int(trace(chosen.trace, chosen.without).violation is not None)
    first, _, last = chosen.seeds.partition("-")
    reports = many(range(int(first), int(last or first) + 1), chosen.without)
    print(summary(reports))
    return int(any(report.violation is not None for report in reports))


if __name__ == "__main__":
    sys.exit(main())
