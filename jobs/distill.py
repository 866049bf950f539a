"""Label every train photo by the teacher that never saw it or its group; list the labels that teachers doubt."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.session import Session
from coordinator.stages import bring
from jobs.console import done
from jobs.run_command import again, refuse_without_students, run_command, show_files
from workers.tasks import LabelTask


def main(arguments: Sequence[str]) -> int:
    return run_command("distill", __doc__, _distill, arguments)


def _distill(session: Session) -> None:
    refuse_without_students(session)
    known = bring(session, "label/")
    for _, task, result in known.done(LabelTask):
        session.say(f"{task.name}: {result.texts['audit']}")
    show_files(session, "labels.parquet", "suspects.csv", "suspects.png")
    rows = sum(len(table.image_ids) for table in known.labels)
    done(f"{rows} soft labels stand; the teachers doubt {len(known.suspects)} given ones", again(session, "student"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
