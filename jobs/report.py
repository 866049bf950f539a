"""Write a run's files and report.html anew from what stands in the store, at any time."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.data import recorded_data
from coordinator.session import Session
from coordinator.stages import publish
from jobs.console import done
from jobs.run_command import again, run_command


def main(arguments: Sequence[str]) -> int:
    return run_command("report", __doc__, _report, arguments)


def _report(session: Session) -> None:
    known = publish(session, recorded_data(session.store, session.run))
    bundle = session.path("bundle")
    step = f"foldfleet predict {bundle} YOUR_PHOTOS" if known.winner and bundle.exists() else again(session, "pipeline")
    finished = f"{len(known.results)} of {len(known.tasks)} tasks are done"
    done(f"{session.path('report.html')} is written; {finished}", step)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
