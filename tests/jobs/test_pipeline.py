"""The whole job with real parts: Ray, training, Tune, the store on disk; killed, interrupted, and whole again."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from support import digits_folder, run_again

from coordinator.events import Event, Progressed, Start, StopRequested
from coordinator.journal import read_journal

ROOT = Path(__file__).parents[2]
SMALL = ["--config", str(ROOT / "configs" / "tiny.yaml"), "--folds.count", "2", "--recipe.epochs", "5"]
MEASURED = ["ms_per_image", "memory_mb"]


class Run:
    """A run of the commands in a folder of its own, with its store there; `scheme` goes before the store's path."""

    def __init__(self, folder: Path, photos: Path, scheme: str = "", **environment: str) -> None:
        self.folder, self.photos = folder, photos
        self.files = folder / "store" / "runs" / "digits"
        self.store, self.environment = f"{scheme}{folder / 'store'}", environment

    def begin(self, name: str) -> subprocess.Popen[str]:
        words = [name, str(self.photos / "train"), "--test", str(self.photos / "test"), *SMALL]
        words += ["--store", self.store, "--run", "digits"]
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )

    def command(self, name: str) -> tuple[int, str]:
        process = self.begin(name)
        output, _ = process.communicate(timeout=240)
        return process.returncode, output

    def events(self) -> list[Event]:
        path = self.files / "events.jsonl"
        return [event for _, event in read_journal(path)] if path.exists() else []

    def wait_for(self, seen: Callable[[Event], bool], process: subprocess.Popen[str]) -> None:
        known = len(self.events())
        while not any(seen(event) for event in self.events()[known:]):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    digits_folder(root / "train", per_class=24)
    everything = digits_folder(root / "all", per_class=30)
    for folder in sorted(everything.iterdir()):
        for photo in sorted(folder.iterdir())[24:]:
            (root / "test" / folder.name).mkdir(parents=True, exist_ok=True)
            photo.rename(root / "test" / folder.name / photo.name)
    return root


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Run:
    run = Run(tmp_path_factory.mktemp("undisturbed"), photos)
    code, output = run.command("pipeline")
    assert code == 0, output
    assert "the run digits is complete" in output
    return run


def test_a_run_leaves_what_the_readme_promises(undisturbed: Run) -> None:
    files = undisturbed.files
    folds = pd.read_csv(files / "folds.csv")
    assert list(folds.columns) == ["image_id", "path", "label", "group", "part", "fold"]
    assert set(folds["part"]) == {"train", "selection", "test"}
    labels = pd.read_parquet(files / "labels.parquet")
    assert list(labels.columns) == ["image_id", "p_digit_0", "p_digit_1", "p_digit_2", "p_digit_3", "teacher"]
    assert set(labels["image_id"]) == set(folds[folds["part"] == "train"]["image_id"])
    board = pd.read_csv(files / "leaderboard.csv")
    assert list(board.columns) == ["members", "size", "score", "score_low", "score_high", *MEASURED]
    predictions = pd.read_csv(files / "predictions.csv")
    assert list(predictions.columns)[:3] == ["image", "category", "score"]
    assert len(predictions) == 24
    rows = json.loads((files / "predictions.json").read_text())
    assert {"image_name", "category", "score"} == set(rows[0])
    for file in ("config.yaml", "result.json", "report.html", "events.jsonl", "bundle/bundle.json", "suspects.png"):
        assert (files / file).stat().st_size > 0, file
    for fold in ("teacher-fold0", "teacher-fold1", "student-fold0", "student-fold1"):
        assert len(pd.read_csv(files / "folds" / fold / "metrics.csv")) == 5
        assert (files / "folds" / fold / "train.log").stat().st_size > 0


def test_the_same_command_again_runs_nothing(undisturbed: Run) -> None:
    before = {path: path.read_bytes() for path in undisturbed.files.rglob("*") if path.is_file()}
    code, output = undisturbed.command("pipeline")
    assert code == 0, output
    assert "done before" in output
    changed = [path.name for path, data in before.items() if path.read_bytes() != data]
    assert changed == [".lock.holders"]


def test_killed_and_interrupted_it_ends_as_if_nothing_had_been(undisturbed: Run, tmp_path: Path, photos: Path) -> None:
    run = Run(tmp_path, photos)

    teachers = run.begin("teacher")  # killed with its whole group once a fold has committed in the middle
    run.wait_for(lambda event: isinstance(event, Progressed) and event.progress.commit == 2, teachers)
    os.killpg(teachers.pid, signal.SIGKILL)
    teachers.communicate()

    students = run.begin("student")  # Ctrl-C, as a terminal sends it, while a student trains
    run.wait_for(lambda event: isinstance(event, Start) and event.task.startswith("student"), students)
    os.killpg(students.pid, signal.SIGINT)
    output, _ = students.communicate(timeout=120)
    assert students.returncode == 130, output
    assert "the same command goes on" in output

    report, rewritten = run.files / "report.html", False
    report.unlink()
    pipeline = run.begin("pipeline")
    while pipeline.poll() is None:
        time.sleep(0.1)
        rewritten = rewritten or (report.exists() and "Not finished" in report.read_text())
    assert pipeline.returncode == 0, pipeline.communicate()[0]
    assert rewritten, "while the run went on"
    assert "Not finished" not in report.read_text()
    pipeline.communicate()
    assert run_again(run.events()) == []
    assert_equal_outcome(run.files, undisturbed.files)


NO_LINKS = """
import errno, os

def link(*_, **__):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))

os.link = link
"""


def test_on_the_heads_disk_even_one_without_links_it_ends_the_same(
    undisturbed: Run, tmp_path: Path, photos: Path
) -> None:
    """This machine is the head of the embedded Ray. Its disk behaves like exFAT, so that one process alone commits."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "sitecustomize.py").write_text(NO_LINKS)  # in every process of the run
    run = Run(tmp_path, photos, "head://", PYTHONPATH=str(tmp_path / "disk"))
    code, output = run.command("pipeline")
    assert code == 0, output
    assert "So this computer alone commits" in output
    assert (run.files / "result.json").read_bytes() == (undisturbed.files / "result.json").read_bytes()
    assert_equal_outcome(run.files, undisturbed.files)


def assert_equal_outcome(one: Path, other: Path) -> None:
    """Everything but what was measured is equal, the weights and predictions to the byte."""
    boards = [pd.read_csv(files / "leaderboard.csv").drop(columns=MEASURED) for files in (one, other)]
    pd.testing.assert_frame_equal(*boards, check_exact=True)
    pd.testing.assert_frame_equal(*(pd.read_parquet(f / "labels.parquet") for f in (one, other)), check_exact=True)
    weights = sorted(path.name for path in (one / "bundle").glob("*.safetensors"))
    assert weights
    for file in ["folds.csv", "predictions.csv", "predictions.json", *(f"bundle/{name}" for name in weights)]:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_the_bundle_predicts_alone_and_alike(undisturbed: Run, tmp_path: Path, photos: Path) -> None:
    words = ["predict", str(undisturbed.files / "bundle"), str(photos / "test"), "--out", str(tmp_path / "out")]
    process = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    alone = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("image").sort_index()
    within = pd.read_csv(undisturbed.files / "predictions.csv").set_index("image").sort_index()
    assert list(alone.index) == list(within.index)
    assert (alone["category"] == within["category"]).all()
    assert (alone.filter(like="p_") - within.filter(like="p_")).abs().max().max() < 1e-4


@pytest.mark.parametrize("name", ["prepare", "teacher", "distill", "student", "ensemble", "plan", "status", "report"])
def test_every_command_works_on_a_finished_run(undisturbed: Run, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--store", str(undisturbed.folder / "store"), "--run", "digits"]
    assert importlib.import_module(f"jobs.{name}").main(words) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert max(map(len, told.out.splitlines())) > 0
    assert [event for event in undisturbed.events() if isinstance(event, StopRequested)] == []
