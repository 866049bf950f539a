"""A fold's story: where it stands and how it came there. The plain part of its state; pure.

All of it repeats to the bit after a resume but the seconds, and what is made of them, which are measured. The log also
says where attempts began.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, field

METRICS_COLUMNS = (
    "epoch",
    "learning_rate",  # of the epoch's first step
    "loss",  # mean over the training images as augmented and mixed, weights as they were at each step
    "val_loss",
    "accuracy",
    "mean_ap",
    "top_class_ap",
    "seconds",  # measured
    "images_per_second",  # measured
)


@dataclass
class Story:
    """`epoch` and `step` count what is finished; `best_epoch` counts from 1."""

    epoch: int = 0
    step: int = 0  # of the current epoch
    best_epoch: int = 0  # 0: none yet
    best_mean_ap: float = -1.0
    seconds: float = 0.0  # spent on the current epoch
    history: list[dict[str, float]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    micro_batch: int | None = None  # the smallest that an attempt used in place of the recipe's

    def trains_by(self, micro_batch: int | None) -> str:
        """Note that an attempt puts so many images on the card at once, not the recipe's number; the words for it."""
        if micro_batch is None:
            return ""
        self.micro_batch = min(micro_batch, self.micro_batch or micro_batch)
        return f"; {micro_batch} images on the card at once, for more did not fit"

    def end_epoch(self, *, rate: float, loss: float, images: int, metrics: dict[str, float]) -> bool:
        """Write down an epoch; True when its mean AP is better than all before."""
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "learning_rate": rate,
                "loss": loss,
                "val_loss": metrics["log_loss"],
                "accuracy": metrics["accuracy"],
                "mean_ap": metrics["mean_ap"],
                "top_class_ap": metrics["top_class_ap"],
                "seconds": round(self.seconds, 3),
                "images_per_second": round(images / self.seconds, 1) if self.seconds > 0 else 0.0,
            }
        )
        self.log.append(
            f"epoch {self.epoch + 1}: loss {loss:.4f}, validation loss {metrics['log_loss']:.4f}, "
            f"accuracy {metrics['accuracy']:.4f}, mAP {metrics['mean_ap']:.4f}"
        )
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        better = metrics["mean_ap"] > self.best_mean_ap
        if better:
            self.best_epoch, self.best_mean_ap = self.epoch, metrics["mean_ap"]
        return better

    def is_finished(self, epochs: int, patience: int | None) -> bool:
        """All epochs done, or `patience` of them without a better one."""
        return self.epoch >= epochs or (patience is not None and self.epoch - self.best_epoch >= patience)

    def metrics_csv(self) -> bytes:
        """One row an epoch, floats to their last digit."""
        text = io.StringIO()
        writer = csv.DictWriter(text, METRICS_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        return text.getvalue().encode()

    def log_text(self) -> bytes:
        return "".join(f"{line}\n" for line in self.log).encode()

    def logs(self) -> dict[str, bytes]:
        """What people read of a fold, by file name."""
        return {"metrics.csv": self.metrics_csv(), "train.log": self.log_text()}


@dataclass
class Pace:
    """How fast one attempt goes, from where and when it began."""

    began_at: float
    began_step: int
    reported_at: float = -math.inf

    def measured(self, now: float, step: int, steps: int) -> tuple[float | None, float | None]:
        """(steps per second, seconds left of `steps`) at `step`; None before there is anything to go by."""
        self.reported_at = now
        done, seconds = step - self.began_step, now - self.began_at
        if done <= 0 or seconds <= 0:
            return None, None
        return done / seconds, (steps - step) * seconds / done
