"""Train the fold students on mixed labels: the given ones and those of teachers that never saw the photo."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.session import Session
from coordinator.stages import bring
from jobs.console import done
from jobs.run_command import again, refuse_without_students, run_command, show_files, trained


def main(arguments: Sequence[str]) -> int:
    return run_command("student", __doc__, _study, arguments)


def _study(session: Session) -> None:
    refuse_without_students(session)
    known = bring(session, "student/")
    show_files(session, "report.html")
    done(trained(known, "student"), again(session, "ensemble"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
