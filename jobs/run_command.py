"""A command on a run: arguments -> session -> the command's story, and the words it ends with."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro
from rich.table import Table

from coordinator.known import Known
from coordinator.leaderboard import sentences
from coordinator.session import Session
from coordinator.variants import recipe_of
from jobs.arguments import parse_arguments
from jobs.console import command, terminal
from shared_store import layout
from shared_store.errors import UserError
from workers.tasks import SearchTask, TrainTask

Story = Callable[[Session], None]
Flags = TypeVar("Flags")


def run_command(name: str, text: str | None, story: Story, arguments: Sequence[str]) -> int:
    """Open the session that `arguments` name and let `story` act on it; returns the exit code."""

    def act(given: Sequence[str]) -> None:
        parsed = parse_arguments(name, (text or "").strip(), given)
        story(Session.open(parsed.run, parsed.config, parsed.overrides, terminal(), parsed.take_over))

    return command(name, act, arguments)


def own_flags(kind: type[Flags], name: str, arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """What a command alone is asked, and the arguments that all of them share; those tell of --help too."""
    if {"-h", "--help"} & set(arguments):
        return kind(), list(arguments)
    asked, rest = tyro.cli(kind, prog=f"foldfleet {name}", args=list(arguments), return_unknown_args=True)
    return asked, rest


def again(session: Session, name: str) -> str:
    """The command line that takes this run one command further."""
    return f"foldfleet {name} --store {shlex.quote(session.store.url)} --run {session.run}"


def refuse_without_students(session: Session) -> None:
    """UserError when the run has one round only, so that nothing is labelled for students and none are trained."""
    if session.experiment.distill.rounds == 1:
        mend = "set distill.rounds to 2, or go on with: " + again(session, "ensemble")
        raise UserError("this run has no students, nor labels for them", where="distill.rounds: 1", mend=mend)


def trained(known: Known, round_name: str) -> str:
    """`10 teachers stand, mAP 0.8790 on their held-out photos`; of several recipes `mAP 0.8790 b4, 0.8654 next`."""
    scores: dict[str, list[float]] = {}
    for _, task, result in known.done(TrainTask):
        if task.name.startswith(f"{round_name}/"):
            scores.setdefault(recipe_of(task.name), []).append(result.numbers["mean_ap"])
    means = [f"{sum(found) / len(found):.4f} {recipe}".strip() for recipe, found in scores.items()]
    count = sum(map(len, scores.values()))
    return f"{count} {round_name}s stand, mAP {', '.join(means)} on their held-out photos"


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
        if session.store.exists(layout.run_file(session.run, file)):
            session.say(f"  {session.path(file)}")
