"""A run's curves read back by the tools that people have; what is not installed is skipped by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from finished_run import FinishedRun, finished_run

from coordinator.curve_exports import EVENT_FILE, to_mlflow, to_tensorboard, to_wandb
from coordinator.curves import CURVES, FoldCurves, Point, fold_curves
from coordinator.outputs import publish_folds
from shared_store.cache import Cache
from shared_store.errors import UserError
from shared_store.store import Store
from workers.tasks import TrainTask

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"


def fold(*epochs: float, task: str = "teacher-fold0-aa") -> FoldCurves:
    """A fold whose epochs ended with these losses, ten seconds each."""
    points = tuple(Point(place, 10.0 * place, {"loss": loss}) for place, loss in enumerate(epochs, start=1))
    return FoldCurves(task, "teacher/fold0", {"epochs": 3, "augmentation.flip": 0.5}, points)


@pytest.fixture
def trained(store: Store, cache: Cache) -> FinishedRun:
    return finished_run(store, cache, (TrainTask,))


def test_curves_are_what_the_folds_wrote_down(trained: FinishedRun) -> None:
    known = trained.known()
    folds = fold_curves(known.tasks, known.curves)
    assert [one.name for one in folds] == ["teacher/fold0", "teacher/fold1", "student/fold0", "student/fold1"]
    for one in folds:
        assert [dict(point.numbers) for point in one.points] == [
            {name: row[name] for name in CURVES} for row in known.curves[one.task]
        ]
        assert [(point.epoch, point.seconds) for point in one.points] == [(1, 2.0), (2, 4.0), (3, 6.0)]
        assert one.recipe["model"] == "test_efficientnet" and "augmentation.flip" in one.recipe


def test_metrics_csv_is_one_line_of_pandas(trained: FinishedRun) -> None:
    publish_folds(trained.store, trained.known())
    folder = trained.store.backend.local_path("runs/demo/folds")
    assert folder is not None
    (line,) = [text for text in PAGE.read_text(encoding="utf-8").splitlines() if "pd.concat(" in text]
    names = {"pd": pd, "Path": Path, "run": folder.parent}
    exec(line.strip(), names)  # noqa: S102 - the reader's own line
    frame = names["curves"]
    assert isinstance(frame, pd.DataFrame) and set(CURVES) < set(frame.columns)
    assert list(frame.loc["teacher-fold1"]["epoch"]) == [1, 2, 3]


def read_events(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """(step, seconds, value) by curve, as TensorBoard itself reads them."""
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the package tensorboard is not installed"
    )
    events = accumulators.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.wall_time, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    to_tensorboard([fold(0.5, 0.25)], tmp_path)
    assert read_events(tmp_path / "teacher-fold0") == {"loss": [(1, 10.0, 0.5), (2, 20.0, 0.25)]}


def test_event_files_grow_and_are_made_anew_for_other_work(tmp_path: Path) -> None:
    file = tmp_path / "teacher-fold0" / EVENT_FILE
    to_tensorboard([fold(0.5)], tmp_path)
    first, place = file.read_bytes(), file.stat().st_ino
    to_tensorboard([fold(0.5, 0.25)], tmp_path)
    second = file.read_bytes()
    assert second.startswith(first) and len(second) > len(first) and file.stat().st_ino == place
    to_tensorboard([fold(0.5, 0.25)], tmp_path)
    assert file.read_bytes() == second
    to_tensorboard([fold(0.75)], tmp_path)
    assert file.read_bytes() != first and len(file.read_bytes()) == len(first)


def test_mlflow_takes_each_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the package mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # without a data base: mlflow-skinny has none
    address = (tmp_path / "mlruns").as_uri()
    to_mlflow([fold(0.5)], "first", address)
    to_mlflow([fold(0.5, 0.25)], "first", address)
    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("foldfleet/first")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "teacher/fold0" and run.data.params == {"epochs": "3", "augmentation.flip": "0.5"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.timestamp, one.value) for one in history] == [(1, 10000, 0.5), (2, 20000, 0.25)]


def test_wandb_keeps_them_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the package wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    to_wandb([fold(0.5, 0.25)], "first", tmp_path)
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/run-teacher-fold0-aa.wandb")
    data = kept.read_bytes()
    assert b"teacher/fold0" in data and b"augmentation.flip" in data and b"0.25" in data


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tool_that_is_not_installed_is_named_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    exports: dict[str, Callable[[], None]] = {
        "mlflow": lambda: to_mlflow([fold(0.5)], "first", "sqlite://"),
        "wandb": lambda: to_wandb([fold(0.5)], "first", tmp_path),
    }
    with pytest.raises(UserError, match="is not installed") as caught:
        exports[name]()
    assert f"foldfleet[{name}]" in caught.value.mend
