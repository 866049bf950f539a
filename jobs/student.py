"""Train the fold students on mixed labels: the given ones and those of teachers that never saw the photo."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.session import Session
from coordinator.stages import bring
from jobs.console import done
from jobs.run_command import again, run_command, show_files
from shared_store.errors import UserError
from workers.tasks import TrainTask


def main(arguments: Sequence[str]) -> int:
    return run_command("student", __doc__, _study, arguments)


def _study(session: Session) -> None:
    if session.experiment.distill.rounds == 1:
        mend = "set distill.rounds to 2, or go on with: " + again(session, "ensemble")
        raise UserError("this run has no students", where="distill.rounds: 1", mend=mend)
    known = bring(session, "student/")
    students = [result for _, task, result in known.done(TrainTask) if task.name.startswith("student/")]
    mean = sum(result.numbers["mean_ap"] for result in students) / len(students)
    show_files(session, "report.html")
    done(f"{len(students)} students stand, mAP {mean:.4f} on their own folds", again(session, "ensemble"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
