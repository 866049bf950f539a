"""One fold run: resume or begin, train epoch by epoch, commit on the way, predict, hand back the Result.

Every epoch ends with a commit, and in mid-epoch one follows at least every `recipe.checkpoint_minutes`; neither changes
what is trained. An attempt that finds another's commit where its own was to go continues from that one. What people
read (metrics.csv, train.log) is made of the history inside the state, so it survives whatever machine it was made on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from shared_store import layout
from shared_store.errors import UserError
from shared_store.records import Result
from shared_store.tables import Predictions, put_predictions
from workers.checkpoint import Checkpoints, LostRaceError, Resumed
from workers.cost import measured_cost
from workers.fold_data import open_fold
from workers.loop import Learner, NanLossError, logits_of
from workers.metrics import all_metrics
from workers.model import (
    empty_model,
    initial_model,
    load_state,
    model_bytes,
    multiply_adds,
    parameter_count,
    seed_of,
)
from workers.optimize import learning_rate
from workers.recipe import Recipe
from workers.repeatable import repeatable
from workers.story import Pace, Story
from workers.tasks import Progress, TrainTask
from workers.weights_file import weights_sha256
from workers.work import Work

__all__ = ["NanLossError", "StoppedError", "train_fold"]

Clock = Callable[[], float]
REPORT_SECONDS = 0.5
_DECODERS_FOR_A_CARD = 4


class StoppedError(Exception):
    """Somebody asked the fold to stop; it did so after commit `commit`, which holds all its steps."""

    def __init__(self, commit: int, epoch: int, step: int) -> None:
        super().__init__(commit, epoch, step)
        self.commit, self.epoch, self.step = commit, epoch, step

    def __str__(self) -> str:
        return f"stopped at epoch {self.epoch}, step {self.step}; commit {self.commit} holds all of it"


def train_fold(task: TrainTask, work: Work, clock: Clock = time.monotonic) -> Result:
    """Do one attempt at a fold: its Result, with all its blobs in the store.

    Raises StoppedError after the last commit when asked to stop; NanLossError; UserError for what the person can mend
    (StoreError when the disk is full: the commits before stand); torch.OutOfMemoryError.
    """
    with repeatable(work.device, work.threads):
        fold = _Fold(task, work, clock)
        with contextlib.closing(fold.data.snapshot):
            return fold.run()


class _Fold:
    """One attempt at one fold."""

    def __init__(self, task: TrainTask, work: Work, clock: Clock) -> None:
        self.task, self.work, self.clock = task, work, clock
        self.recipe = Recipe.model_validate(task.recipe)
        self.threads = 0 if work.device == "cpu" else max(_DECODERS_FOR_A_CARD, work.threads)
        self.data = open_fold(task, work, self.recipe, self.threads)
        self.steps = self.data.training.steps(self.recipe.batch_size)
        self.checkpoints = Checkpoints(
            work.store, task=work.task, spec=work.spec, attempt=work.attempt, nonce=work.nonce
        )

    def run(self) -> Result:
        while True:
            try:
                self.resume()
                while not self.story.is_finished(self.recipe.epochs, self.recipe.patience):
                    self.train_epoch()
                return self.result()
            except LostRaceError as lost:
                other = lost.standing
                self.checkpoints.notes.append(
                    f"attempt {other.attempt} made commit {other.number} first: going on there"
                )

    def resume(self) -> None:
        """Load the newest commit that can be trusted, or begin."""
        resumed = self.checkpoints.resume()
        classes = len(self.task.classes)
        if resumed is None:
            self._check_weights()
            model = initial_model(self.recipe, classes, seed_of("weights", self.recipe.seed, self.task.held_out))
        else:
            model = empty_model(self.recipe, classes)
        self.learner = Learner(self.recipe, model, self.work.device, (self.task.held_out,))
        self.story = Story()
        self.best: str | None = None  # digest of the best weights
        note = f"attempt {self.work.attempt} begins"
        if resumed is not None:
            self._load(resumed)
            place = f"epoch {self.story.epoch}, step {self.story.step}"
            note = f"attempt {self.work.attempt} resumes from commit {resumed.commit.number}: {place}"
        self.story.log += [*self.checkpoints.notes, note]
        self.checkpoints.notes = []
        self.pace = Pace(self.clock(), self.total_step())
        self.committed_at = self.clock()
        self.report(note=note)

    def _load(self, resumed: Resumed) -> None:
        try:
            self.learner.load(resumed.state["learner"])
        except ValueError as error:
            what = f"the checkpoint does not fit this machine's timm: {error}"
            mend = "use the versions of torch and timm that it was begun with, or another recipe.seed to begin anew"
            where = f"{self.work.store.url}: {layout.commit(self.work.task, resumed.commit.number)}"
            raise UserError(what, where=where, mend=mend) from error
        self.story = Story(**resumed.state["story"])
        self.best = resumed.commit.blobs.get("best")

    def train_epoch(self) -> None:
        """The rest of the current epoch, its validation and its commit. Raises StoppedError when asked to stop."""
        mark = self.clock()
        for done in self.learner.epoch(self.data.training, self.story.epoch, self.story.step):
            now = self.clock()
            self.story.step = done
            self.story.seconds, mark = self.story.seconds + now - mark, now
            self.after_step(now)
        logits = self.logits(self.scored_model(), self.data.scored)
        if not np.isfinite(logits).all():  # weights can be finite and too large for any sum
            raise NanLossError(*self.learner.last)
        metrics = all_metrics(logits, self.data.scored_labels)
        self.story.seconds += self.clock() - mark
        self.end_epoch(metrics)

    def after_step(self, now: float) -> None:
        """Commit in mid-epoch when it is time or when asked to stop; otherwise report now and then."""
        stop = self.work.reporter.stop_requested()
        due = now - self.committed_at >= 60 * self.recipe.checkpoint_minutes and self.story.step < self.steps
        if stop or due:
            self.learner.check()
            self.commit()
        elif now - self.pace.reported_at >= REPORT_SECONDS:
            self.learner.look()
            self.report()
        if stop:
            raise StoppedError(self.checkpoints.number, self.story.epoch, self.story.step)

    def end_epoch(self, metrics: dict[str, float]) -> None:
        tally = self.learner.tally
        assert tally.mean_loss is not None, f"{self.task.name}: an epoch without a step"
        rate = learning_rate(self.recipe, self.story.epoch, 0, self.steps)
        better = self.story.end_epoch(rate=rate, loss=tally.mean_loss, images=tally.images, metrics=metrics)
        if better and self.recipe.keep == "best":
            self.best = self.checkpoints.put_best(self.learner.model.state_dict(), self.story.epoch)
        self.commit()

    def _check_weights(self) -> None:
        """The pretrained weights must be those that the task was named for."""
        source, expected = self.recipe.weights, self.task.weights_sha256
        if expected and weights_sha256(source) != expected:
            mend = "put the same file there on every machine; if it was changed on purpose, give the command again"
            raise UserError("the pretrained weights are not there, or not the ones given", where=source, mend=mend)

    def commit(self) -> None:
        """Commit where the fold stands, and publish what people read of it."""
        state = {"learner": self.learner.state(), "story": dataclasses.asdict(self.story)}
        commit = self.checkpoints.commit(state, epoch=self.story.epoch, step=self.total_step(), best=self.best)
        self.committed_at = self.clock()
        self.work.store.publish(layout.log(self.work.task, "metrics.csv"), self.story.metrics_csv())
        self.work.store.publish(layout.log(self.work.task, "train.log"), self.story.log_text())
        self.report(commit=commit.number)

    def report(self, *, commit: int | None = None, note: str = "") -> None:
        """Tell the reporter where the fold stands."""
        total = self.recipe.epochs * self.steps
        speed, left = self.pace.measured(self.clock(), self.total_step(), total)
        history = self.story.history
        progress = Progress(
            self.work.task,
            self.work.attempt,
            epoch=self.story.epoch,
            epochs=self.recipe.epochs,
            step=self.total_step(),
            steps=total,
            loss=self.learner.tally.mean_loss,
            mean_ap=history[-1]["mean_ap"] if history else None,
            images_per_second=None if speed is None else speed * self.recipe.batch_size,
            seconds_left=left,
            commit=commit,
            note=note,
        )
        self.work.reporter.progress(progress)

    def total_step(self) -> int:
        """Optimizer steps finished, over all epochs."""
        return self.story.epoch * self.steps + self.story.step

    def scored_model(self) -> nn.Module:
        """The running average where that is what will be kept, else the model itself."""
        average = self.learner.average
        return average.module if self.recipe.keep == "ema" and average is not None else self.learner.model

    def logits(self, model: nn.Module, image_ids: tuple[str, ...]) -> NDArray[np.float32]:
        return logits_of(
            model, self.data.snapshot, image_ids, recipe=self.recipe, device=self.work.device, threads=self.threads
        )

    def result(self) -> Result:
        """Predict with the kept weights and keep all that the contract names."""
        model, kept_epoch = self.scored_model(), self.story.epoch
        if self.recipe.keep == "best":
            assert self.best is not None, f"{self.task.name}: no best epoch after {self.story.epoch} epochs"
            load_state(model, self.checkpoints.best(self.best))
            kept_epoch = self.story.best_epoch
        held_out, selection = [
            Predictions(image_ids, self.task.classes, self.logits(model, image_ids))
            for image_ids in (self.data.held_out, self.data.selection)
        ]
        store = self.work.store
        about = {"task": self.work.task, "model": self.recipe.model, "classes": list(self.task.classes)}
        blobs = {
            "model": store.put_blob(model_bytes(model, about)),
            "held_out": put_predictions(store, held_out),
            "selection": put_predictions(store, selection),
            "metrics": store.put_blob(self.story.metrics_csv()),
        }
        metrics = all_metrics(held_out.rows(self.data.scored), self.data.scored_labels)
        numbers = metrics | {"kept_epoch": kept_epoch} | self.costs(model)
        return Result(self.work.task, self.work.spec, self.work.attempt, self.work.nonce, blobs, numbers)

    def costs(self, model: nn.Module) -> dict[str, float]:
        """What the training took and what a prediction takes."""
        cost = measured_cost(model, self.recipe.image_size, self.learner.device, self.clock)
        return {
            "epochs": self.story.epoch,
            "multiply_adds": multiply_adds(model, self.recipe.image_size),
            "parameters": parameter_count(model),
            "ms_per_image": cost.ms_per_image,
            "memory_mb": cost.memory_mb,
            "seconds": sum(row["seconds"] for row in self.story.history),
        }
