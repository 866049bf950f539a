"""Two real commands on one run: the second is told who drives it and since when, or takes over: the first ends well."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import digits_folder

from coordinator.events import Start
from coordinator.generation import ENDED, Chain
from coordinator.journal import read_journal
from shared_store import layout
from shared_store.store import open_store

ROOT = Path(__file__).parents[2]


class Command:
    """A `foldfleet` command on one run, as a process of its own."""

    def __init__(self, folder: Path, name: str, *words: str) -> None:
        settings = ["--config", str(ROOT / "configs" / "tiny.yaml"), "--recipe.epochs", "400", "--folds.count", "2"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", name, str(folder / "photos"), *settings, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            start_new_session=True,
        )

    def ended(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=120)
        return self.process.returncode, output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    digits_folder(tmp_path / "photos", per_class=12, classes=2)
    return tmp_path


@pytest.fixture
def training(folder: Path) -> Iterator[Command]:
    """A command whose folds train."""
    command = Command(folder, "teacher")
    journal = folder / "foldfleet-store" / "runs" / "main" / "events.jsonl"
    try:
        while not (journal.exists() and any(isinstance(event, Start) for _, event in read_journal(journal))):
            assert command.process.poll() is None, command.ended()[1]
            time.sleep(0.1)
        yield command
    finally:
        command.process.terminate()
        command.process.communicate(timeout=60)


def test_the_second_is_refused_and_take_over_ends_the_first_with_its_work_kept(folder: Path, training: Command) -> None:
    code, output = Command(folder, "prepare").ended()
    assert code == 2
    assert re.search(rf"already being driven\n  where: process {training.process.pid} on \S+ since 20\d\d-", output), (
        output
    )
    assert "--take-over" in output

    second = Command(folder, "prepare", "--take-over")
    code, output = second.ended()
    assert code == 0, output
    code, output = training.ended()
    assert code == 130, output
    assert f"taken over by process {second.process.pid} on " in output
    assert "finished and committed work is kept" in output
    assert "stopped, its last step is committed" in output

    chain = Chain(open_store(str(folder / "foldfleet-store")), layout.coordinators("main"))
    newest = chain.newest()
    assert newest is not None
    assert (newest.process, chain.beat(newest)) == (second.process.pid, ENDED), "the next command need not wait"
