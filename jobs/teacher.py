"""Train the fold teachers: each learns from all folds but its own and predicts the one it never saw."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.session import Session
from coordinator.stages import bring
from jobs.console import done
from jobs.run_command import again, run_command, show_files
from workers.tasks import TrainTask


def main(arguments: Sequence[str]) -> int:
    return run_command("teacher", __doc__, _teach, arguments)


def _teach(session: Session) -> None:
    known = bring(session, "teacher/")
    teachers = [result for _, task, result in known.done(TrainTask) if task.name.startswith("teacher/")]
    mean = sum(result.numbers["mean_ap"] for result in teachers) / len(teachers)
    show_files(session, "report.html")
    done(f"{len(teachers)} teachers stand, mAP {mean:.4f} on the folds they never saw", again(session, "distill"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
