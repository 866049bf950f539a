"""Curves handed to the tools that people have: TensorBoard's event files, MLflow, Weights & Biases.

What a run keeps anyway is converted, whenever somebody asks: no training knows of these tools. Doing it again brings
what is new. Their packages are optional, but for the one that writes event files, which comes with Ray Tune.
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from coordinator.curves import FoldCurves, Point
from shared_store.errors import UserError
from shared_store.layout import slug

EVENT_FILE = "events.out.tfevents.foldfleet"
PROJECT = "foldfleet"


def to_tensorboard(folds: Sequence[FoldCurves], folder: Path) -> None:
    """A folder with one event file for each fold. Times are seconds of training, as of 1970: look at them as relative.

    Files only grow, so that a TensorBoard that runs goes on reading; one of other work under the same name is replaced.
    """
    for fold in folds:
        path = folder / slug(fold.name) / EVENT_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        data, before = _event_bytes(fold), path.read_bytes() if path.exists() else b""
        if not data.startswith(before):
            path.unlink()
            before = b""
        with path.open("ab") as file:
            file.write(data[len(before) :])


def _event_bytes(fold: FoldCurves) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / EVENT_FILE
        with contextlib.closing(RecordWriter(str(path))) as writer:
            writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
            for point in fold.points:
                values = [Summary.Value(tag=name, simple_value=value) for name, value in point.numbers.items()]
                event = Event(wall_time=point.seconds, step=point.epoch, summary=Summary(value=values))
                writer.write(event.SerializeToString())
        return path.read_bytes()


def to_mlflow(folds: Sequence[FoldCurves], run: str, address: str) -> None:
    """An MLflow experiment for the run at a tracking server or data base, and in it a run for each fold."""
    mlflow = _package("mlflow")
    try:
        client = mlflow.MlflowClient(address)
        name = f"{PROJECT}/{run}"
        there = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if there is None else there.experiment_id
        for fold in folds:
            _fold_to_mlflow(fold, client, experiment)
    except (mlflow.exceptions.MlflowException, ImportError) as error:  # a data base needs more than mlflow-skinny
        mend = "give --out what MLflow calls a tracking URI, such as sqlite:////PATH/mlflow.db or http://HOST:5000"
        raise UserError(f"MLflow does not take the curves: {error}", where=address, mend=mend) from error


def _fold_to_mlflow(fold: FoldCurves, client: Any, experiment: str) -> None:
    entities = importlib.import_module("mlflow.entities")
    found = client.search_runs([experiment], f"tags.`foldfleet.task` = '{fold.task}'")
    if found:
        number = found[0].info.run_id
        known = {metric.step for metric in client.get_metric_history(number, "loss")}
    else:
        tags = {"foldfleet.task": fold.task}
        number, known = client.create_run(experiment, start_time=0, run_name=fold.name, tags=tags).info.run_id, set()
        client.log_batch(number, params=[entities.Param(key, str(value)) for key, value in fold.recipe.items()])
    for point in fold.points:
        if point.epoch not in known:
            at = round(1000 * point.seconds)
            metrics = [entities.Metric(name, value, at, point.epoch) for name, value in point.numbers.items()]
            client.log_batch(number, metrics=metrics)
    client.set_terminated(number, end_time=round(1000 * _last(fold).seconds))


def to_wandb(folds: Sequence[FoldCurves], run: str, folder: Path) -> None:
    """A run of Weights & Biases for each fold, grouped by the run; WANDB_MODE=offline leaves them below `folder`."""
    wandb = _package("wandb")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for fold in folds:
            one = wandb.init(
                project=PROJECT,
                group=run,
                name=fold.name,
                id=fold.task,  # again: the same run there, and epochs that it has are passed over
                resume="allow",
                dir=str(folder),
                config=dict(fold.recipe),
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
            )
            for point in fold.points:
                one.log({**point.numbers, "seconds": point.seconds}, step=point.epoch)
            one.finish()
    except wandb.errors.Error as error:
        mend = "run `wandb login` first, or set WANDB_MODE=offline and send them later with `wandb sync`"
        raise UserError(f"Weights & Biases does not take the curves: {error}", where=str(folder), mend=mend) from error


def _last(fold: FoldCurves) -> Point:
    return fold.points[-1]


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        mend = f"pip install 'foldfleet[{name}]'"
        raise UserError(f"the package {name} is not installed", where=f"--to {name}", mend=mend) from error
