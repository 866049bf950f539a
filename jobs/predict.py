"""Predict photos with an exported bundle: `foldfleet predict BUNDLE IMAGES`. Needs no Ray and no store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from coordinator.view import shown
from jobs.console import command, done, terminal
from shared_store.errors import UserError
from workers.predict import Summary, predict_folder

BATCH_SIZE = 32


@dataclass(frozen=True)
class Arguments:
    """What to predict with, and what."""

    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")]
    """The exported folder: runs/NAME/bundle in a store."""
    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES")]
    """A photo, a folder with all below it, or a CSV with a path column."""
    out: Path = Path("predictions")
    """Folder for predictions.csv, predictions.json and rejected.csv."""
    batch_size: int = BATCH_SIZE
    flip_tta: bool = False
    """Average each photo with its mirror image."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto: a GPU where there is one."""


def main(arguments: Sequence[str]) -> int:
    return command("predict", _predict, arguments)


def _predict(arguments: Sequence[str]) -> None:
    given = tyro.cli(Arguments, prog="foldfleet predict", description=(__doc__ or "").strip(), args=list(arguments))
    if given.batch_size < 1:
        raise UserError("a batch holds at least one photo", where="--batch-size", mend="give 1 or more")
    with shown(terminal(), "predicting") as progress:
        summary = predict_folder(
            given.bundle,
            given.images,
            given.out,
            batch_size=given.batch_size,
            flip_tta=given.flip_tta,
            device=_device(given.device),
            progress=progress,
        )
    _tell(summary)


def _device(given: str) -> str:
    """UserError for a device that torch does not know or this machine does not have."""
    if given == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=given)
    except (RuntimeError, AssertionError) as error:
        why = next(iter(str(error).splitlines()), "no such device")
        raise UserError(why, where=f"--device {given}", mend="give cpu, cuda or auto") from error
    return given


def _tell(summary: Summary) -> None:
    for name, count in summary.counts.items():
        print(f"  {name}: {count}")
    if summary.rejected:
        name, reason = summary.rejected[0]
        count = len(summary.rejected)
        first = ", first" if count > 1 else ":"
        print(f"{_photos(count)} could not be read (rejected.csv){first} {name}: {reason}")
    print(
        f"{summary.ms_per_image:.1f} ms an image in all: read {summary.read_ms:.1f}, model {summary.model_ms:.1f}, "
        f"loading {summary.load_seconds:.1f} s once; at most {summary.memory_mb:.0f} MB of {summary.memory_of} memory"
    )
    files = ", ".join(str(file) for file in summary.files)
    done(f"predicted {_photos(summary.images)}: {files}", f"look at {summary.files[0]}")


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count} photos"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
