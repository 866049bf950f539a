"""A command on a run: arguments -> session -> the command's story, and the words it ends with."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from rich.table import Table

from coordinator.known import Known
from coordinator.leaderboard import sentences
from coordinator.session import Session
from jobs.arguments import parse_arguments
from jobs.console import command, terminal
from workers.tasks import SearchTask

Story = Callable[[Session], None]


def run_command(name: str, text: str | None, story: Story, arguments: Sequence[str]) -> int:
    """Open the session that `arguments` name and let `story` act on it; returns the exit code."""

    def act(given: Sequence[str]) -> None:
        parsed = parse_arguments(name, (text or "").strip(), given)
        story(Session.open(parsed.run, parsed.config, parsed.overrides, terminal()))

    return command(name, act, arguments)


def again(session: Session, name: str) -> str:
    """The command line that takes this run one command further."""
    return f"foldfleet {name} --store {shlex.quote(session.store.url)} --run {session.run}"


def show_leaderboard(session: Session, known: Known) -> None:
    """The best ensembles and the simpler choices beside them, and the verdict in words."""
    search, result = known.search, known.only(SearchTask)
    if search is None or result is None:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("members", "size", search["metric"], "from", "to", "ms/image", "MB"):
        table.add_column(column, justify="left" if column == "members" else "right")
    rows = session.store.get_blob(result.blobs["leaderboard"]).decode().splitlines()[1:]
    for line in rows[:10]:
        members, size, *numbers = line.split(",")
        score, low, high, ms, memory = map(float, numbers)
        table.add_row(members, size, f"{score:.4f}", f"{low:.4f}", f"{high:.4f}", f"{ms:.1f}", f"{memory:.0f}")
    session.console.print(table)
    for sentence in sentences(result.texts["verdict"]):
        session.console.print(sentence, highlight=False, markup=False)


def show_files(session: Session, *files: str) -> None:
    """Where the run left what people look for."""
    for file in files:
        if session.store.read(f"runs/{session.run}/{file}") is not None:
            session.say(f"  {session.path(file)}")
