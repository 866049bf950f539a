"""One fold run: resume or begin, train epoch by epoch, commit on the way, predict, hand back the Result.

Every epoch ends with a commit, and in mid-epoch one lands at least every `recipe.checkpoint_minutes`; neither changes
what is trained, nor waits for a disk. An attempt that hears of another one which is further continues from there. What
people read (metrics.csv, train.log) is made of the history inside the state, so it survives whatever machine it was
made on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from shared_store.records import Result
from shared_store.store import Store
from shared_store.tables import Predictions
from workers.beginning import begin, recipe_of
from workers.cadence import Cadence
from workers.chain import LostRaceError
from workers.checkpoint import PATIENCE_SECONDS, Checkpoints
from workers.fold_data import open_fold
from workers.fold_result import Trained, keep_result
from workers.loop import NanLossError, logits_of
from workers.metrics import all_metrics
from workers.model import load_state
from workers.optimize import learning_rate
from workers.repeatable import repeatable
from workers.stopped import StoppedError
from workers.story import Pace
from workers.tasks import Progress, TrainTask
from workers.tier import open_tier
from workers.tuning import unsearched_modules
from workers.uploads import publish_logs
from workers.work import Work

__all__ = ["NanLossError", "StoppedError", "train_fold"]

Clock = Callable[[], float]
REPORT_SECONDS = 0.5
_DECODERS_FOR_A_CARD = 4


def train_fold(
    task: TrainTask,
    work: Work,
    clock: Clock = time.monotonic,
    tier: Store | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Result:
    """Do one attempt at a fold: its Result, with all its blobs in the store.

    `tier`: where commits lie on this machine, by default below its cache. `patience_seconds`: how long a stop or a
    failure waits for the store to take the last of them. Raises StoppedError after the last commit when asked to stop;
    NanLossError; UserError for what the person can mend (StoreError when the store takes no result: what was committed
    stands, here or there); torch.OutOfMemoryError.
    """
    tier = tier or open_tier(work.cache.folder, work.store.url)
    with unsearched_modules(), repeatable(work.device, work.threads):
        fold = _Fold(task, work, clock, tier, patience_seconds)
        with contextlib.closing(fold.data.snapshot):
            return fold.run()


class _Fold:
    """One attempt at one fold."""

    def __init__(self, task: TrainTask, work: Work, clock: Clock, tier: Store, patience_seconds: float) -> None:
        self.task, self.work, self.clock, self.tier = task, work, clock, tier
        self.patience_seconds = patience_seconds
        self.recipe = recipe_of(task, work.micro_batch)
        self.threads = 0 if work.device == "cpu" else max(_DECODERS_FOR_A_CARD, work.threads)
        self.data = open_fold(task, work, self.recipe, self.threads)
        self.steps = self.data.training.steps(self.recipe.batch_size)
        self.cadence = Cadence(60 * self.recipe.checkpoint_minutes)
        self.notes: list[str] = []  # for the log, once there is one

    def run(self) -> Result:
        while True:
            self.checkpoints = Checkpoints(
                self.work, self.tier, clock=self.clock, patience_seconds=self.patience_seconds
            )
            with self.checkpoints:
                try:
                    self.resume()
                    while not self.story.is_finished(self.recipe.epochs, self.recipe.patience):
                        self.train_epoch()
                    return self.result()
                except LostRaceError as lost:
                    other = lost.standing
                    self.notes.append(f"attempt {other.attempt} made commit {other.number} first: going on there")

    def resume(self) -> None:
        """Load the furthest commit that can be trusted, or begin."""
        resumed = self.checkpoints.resume()
        self.learner, self.story = begin(self.task, self.recipe, self.work.device, resumed)
        note = as_usual = "attempt 1 begins"
        if resumed is not None:
            place = f"epoch {self.story.epoch}, step {self.story.step}"
            note = f"attempt {self.work.attempt} resumes from {resumed.name}: {place}"
        elif self.work.attempt > 1:
            note = f"attempt {self.work.attempt} begins"
        note += self.story.trains_by(self.work.micro_batch)
        self.story.log += [*self.notes, *self.checkpoints.news().notes, note]
        self.notes = []
        self.pace = Pace(self.clock(), self.total_step())
        self.began = self.cadence.snapshot_at = self.clock()
        self.report(note="" if note == as_usual else note)  # that it has started is told already

    def train_epoch(self) -> None:
        """The rest of the current epoch, its validation and its commit. Raises StoppedError when asked to stop."""
        mark, first = self.clock(), True
        for done in self.learner.epoch(self.data.training, self.story.epoch, self.story.step):
            if first:  # an optimizer's state is made by the first step, or by the first after the backbone is unfrozen
                self.checkpoints.prepare(self.state())
                first = False
            now = self.clock()
            self.story.step = done
            step_seconds, mark = now - mark, now
            self.story.seconds += step_seconds
            self.after_step(now, step_seconds)
        logits = self.logits(self.scored_model(), self.data.scored)
        if not np.isfinite(logits).all():  # weights can be finite and too large for any sum
            raise NanLossError(*self.learner.last)
        metrics = all_metrics(logits, self.data.scored_labels)
        self.cadence.validation_seconds = self.clock() - mark
        self.story.seconds += self.cadence.validation_seconds
        self.end_epoch(metrics)

    def after_step(self, now: float, step_seconds: float) -> None:
        """Commit in mid-epoch when it is time or when asked to stop; otherwise report now and then."""
        self.checkpoints.check(self.position())
        if self.work.reporter.stop_requested():
            self.stop()
        landing, last_step = self.checkpoints.landing_seconds, self.story.step == self.steps
        due = self.cadence.is_due(now, step_seconds=step_seconds, landing_seconds=landing, last_step=last_step)
        if due and not self.checkpoints.is_behind:
            self.learner.check()
            self.commit()
        elif now - self.pace.reported_at >= REPORT_SECONDS:
            self.learner.look()
            self.report()
        self.checkpoints.keep_within(self.cadence.interval_seconds, self.began, now + step_seconds)
        self.tell()

    def stop(self) -> None:
        """Commit the last step, see it into the store if that answers, and raise StoppedError."""
        self.learner.check()
        self.commit(must=True)
        stored = self.checkpoints.settle()
        self.checkpoints.close()
        self.tell()
        landed = self.checkpoints.landed_at == self.position()  # else the step was not taken: better weights waited
        commit = self.checkpoints.number if stored and landed else None
        raise StoppedError(commit, self.story.epoch, self.story.step, here=landed)

    def end_epoch(self, metrics: dict[str, float]) -> None:
        tally = self.learner.tally
        assert tally.mean_loss is not None, f"{self.task.name}: an epoch without a step"
        rate = learning_rate(self.recipe, self.story.epoch, 0, self.steps)
        better = self.story.end_epoch(rate=rate, loss=tally.mean_loss, images=tally.images, metrics=metrics)
        self.checkpoints.check(self.position())
        self.commit(best=better and self.recipe.keep == "best")
        self.report()
        self.tell()

    def state(self) -> dict[str, Any]:
        """All that the rest of the fold depends on."""
        return {"learner": self.learner.state(), "story": dataclasses.asdict(self.story)}

    def commit(self, *, best: bool = False, must: bool = False) -> None:
        """Commit where the fold stands, with what people read of it, unless disks are too slow for that.

        `best`: its weights are the best so far. `must`: wait for a slow disk.
        """
        now, where = self.clock(), ("learner", "model") if best else None
        if self.checkpoints.commit(self.state(), self.position(), where, self.story.logs(), must):
            self.cadence.snapshot_at = now

    def tell(self) -> None:
        """Report what became known of commits, and put down what people should know."""
        news = self.checkpoints.news()
        self.story.log += news.notes
        for note in news.notes:
            self.report(note=note)
        if news.commit is not None:
            self.report(commit=news.commit)

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
            best_epoch=self.story.best_epoch or None,
        )
        self.work.reporter.progress(progress)

    def position(self) -> tuple[int, int]:
        """How far the fold is, as commits count it."""
        return self.story.epoch, self.total_step()

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
        self.checkpoints.land()
        if self.recipe.keep == "best":
            load_state(model, self.checkpoints.best())
            kept_epoch = self.story.best_epoch
        held_out, selection = [
            Predictions(image_ids, self.task.classes, self.logits(model, image_ids))
            for image_ids in (self.data.held_out, self.data.selection)
        ]
        self.checkpoints.close()  # the link is the result's now; what it supersedes need not go any more
        self.tell()
        publish_logs(self.work.store, self.work.task, self.story.logs())
        trained = Trained(model, kept_epoch, held_out, selection)
        return keep_result(trained, self.story, self.task, self.work, data=self.data, clock=self.clock)
