"""Train the fold teachers: each learns from all folds but its own and predicts the one it never saw."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.session import Session
from coordinator.stages import bring
from jobs.console import done
from jobs.run_command import again, run_command, show_files, trained


def main(arguments: Sequence[str]) -> int:
    return run_command("teacher", __doc__, _teach, arguments)


def _teach(session: Session) -> None:
    known = bring(session, "teacher/")
    show_files(session, "report.html")
    following = "ensemble" if session.experiment.distill.rounds == 1 else "distill"
    done(trained(known, "teacher"), again(session, following))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
