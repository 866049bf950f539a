"""What was found on the machines as one table: a line for all that say the same, and what to do below what is wrong.

And the command of the run that comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import join

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coordinator.findings import Finding, State

_COLOURS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}


@dataclass(frozen=True)
class Line:
    """One finding, and the machines that share it."""

    finding: Finding
    machines: tuple[str, ...]


def lines_of(findings: Sequence[Finding]) -> list[Line]:
    """Findings of one check that say the same are one line; their order is kept."""
    shared: dict[tuple[str, State, str, str], list[str]] = {}
    first: dict[tuple[str, State, str, str], Finding] = {}
    for one in findings:
        key = (one.check, one.state, one.found, one.mend)
        shared.setdefault(key, []).append(one.machine)
        first.setdefault(key, one)
    return [Line(first[key], tuple(dict.fromkeys(machines))) for key, machines in shared.items()]


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """The table, at most as wide as the console."""
    everyone = {one.machine for one in findings}
    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "on", "what was found"):
        table.add_column(column, overflow="fold")
    for line in lines_of(findings):
        one = line.finding
        state = f"[{_COLOURS[one.state]}]{one.state}[/]"
        machines = "all" if len(everyone) > 1 and set(line.machines) == everyone else ", ".join(line.machines)
        table.add_row(state, one.check, escape(machines), escape(one.found))
        if one.mend:
            table.add_row("", "", "", f"-> {escape(one.mend)}")
    console.print(table, highlight=False)


def summary(findings: Sequence[Finding]) -> str:
    """`4 machines examined: 1 fail, 0 warn`."""
    machines = len({one.machine for one in findings})
    counts = {state: sum(one.state is state for one in findings) for state in (State.FAIL, State.WARN)}
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{machines} machine{'s' * (machines > 1)} examined: {told}"


def names_a_file(where: str) -> bool:
    """Whether the machines to look at are those of a cluster.yaml: else the head of a fleet's Ray is named."""
    return where.endswith((".yaml", ".yml"))


def next_step(where: str, store: str | None, config: str | None) -> str:
    """The run that was looked at: on the head where a person sits elsewhere, else on this machine."""
    if names_a_file(where) and config is not None and config.startswith("configs/"):
        config = f"foldfleet/{config}"  # where cluster.yaml brings it
    words = ["ray", "submit", where, "jobs/pipeline.py", "--"] if names_a_file(where) else ["foldfleet", "pipeline"]
    words += ["PHOTOS", *(["--config", config] if config else [])]
    words += ["--fleet.address", "auto" if names_a_file(where) else where] if where else []
    store = store or ("head:///home/USER/store" if where else None)
    return join([*words, *(["--store", store] if store else [])])
