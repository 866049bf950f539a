"""The folds' learning curves for the tools that people have: TensorBoard, MLflow, Weights & Biases.

--to tensorboard (the default) writes event files below --out, or beside the run's files. --to mlflow takes a tracking
URI as --out, else MLFLOW_TRACKING_URI, else a data base beside the run's files. --to wandb sends to the account of
`wandb login`, or with WANDB_MODE=offline leaves files below --out. At any time, of a run under way too; again brings
what is new.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Literal

from coordinator.curve_exports import to_mlflow, to_tensorboard, to_wandb
from coordinator.curves import fold_curves
from coordinator.data import recorded_data
from coordinator.known import gather
from coordinator.session import Session
from jobs.console import done
from jobs.run_command import own_flags, run_command
from shared_store.errors import UserError


@dataclass(frozen=True)
class _Asked:
    to: Literal["tensorboard", "mlflow", "wandb"] = "tensorboard"
    out: str | None = None


def main(arguments: Sequence[str]) -> int:
    asked, rest = own_flags(_Asked, "curves", arguments)
    return run_command("curves", __doc__, partial(_curves, asked), rest)


def _curves(asked: _Asked, session: Session) -> None:
    known = gather(session.store, session.run, session.experiment, recorded_data(session.store, session.run))
    folds = fold_curves(known.tasks, known.curves)
    if not folds:
        mend = "wait for an epoch to end; `foldfleet status` tells how far the folds are"
        raise UserError("no fold has finished an epoch yet", where=f"runs/{session.run}", mend=mend)
    beside = session.path(asked.to)
    match asked.to:
        case "tensorboard":
            folder = Path(asked.out) if asked.out else beside
            to_tensorboard(folds, folder)
            next_step = f"tensorboard --logdir {quote(str(folder))}"
        case "mlflow":
            address = asked.out or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside.with_suffix('.db')}"
            to_mlflow(folds, session.run, address)
            next_step = f"mlflow ui --backend-store-uri {quote(address)}"
        case "wandb":
            folder = Path(asked.out) if asked.out else beside
            to_wandb(folds, session.run, folder)
            next_step = f"wandb sync --sync-all in {quote(str(folder))}, where they were kept offline"
    done(f"the curves of {len(folds)} folds are in {asked.to}", next_step)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
