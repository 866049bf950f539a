"""Choose the best small ensemble on photos that no teacher or student saw, by a Ray Tune search; export it.

What it needs is trained first where it is missing; test photos, if the run has any, are predicted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.session import Session
from coordinator.stages import EVERYTHING, bring
from jobs.console import done
from jobs.run_command import run_command, show_files, show_leaderboard


def main(arguments: Sequence[str]) -> int:
    return run_command("ensemble", __doc__, _choose, arguments)


def _choose(session: Session) -> None:
    known = bring(session, *EVERYTHING)
    show_leaderboard(session, known)
    show_files(session, "leaderboard.csv", "report.html", "bundle/bundle.json")
    names = " + ".join(known.tasks[name].name for name in known.winner)
    done(f"the winner is {names}", f"foldfleet predict {session.path('bundle')} PHOTOS")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
