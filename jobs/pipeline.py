"""All of it: photos, teachers, honest labels, students, the best small ensemble, its predictions, a report.

The same command again goes on where it was, whatever stopped it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.session import Session
from coordinator.stages import EVERYTHING, bring
from jobs.console import done
from jobs.run_command import run_command, show_files, show_leaderboard
from workers.tasks import PredictTask

LEFT = ("report.html", "leaderboard.csv", "predictions.csv", "predictions.json", "suspects.png", "result.json")


def main(arguments: Sequence[str]) -> int:
    return run_command("pipeline", __doc__, _all, arguments)


def _all(session: Session) -> None:
    known = bring(session, *EVERYTHING)
    show_leaderboard(session, known)
    test = known.only(PredictTask)
    if test is not None and "test_mean_ap" in test.numbers:
        numbers = test.numbers
        session.say(
            f"on the test photos, which chose nothing: mAP {numbers['test_mean_ap']:.4f}, "
            f"accuracy {numbers['test_accuracy']:.4f}"
        )
    session.say("left for you:")
    show_files(session, *LEFT)
    bundle = session.path("bundle")
    session.say(f"  {bundle}")
    done(f"the run {session.run} is complete", f"foldfleet predict {bundle} YOUR_PHOTOS")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
