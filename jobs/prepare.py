"""Read the photos once: decode, resize, settle duplicates, deal the folds, freeze all of it in the store."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.session import Session
from coordinator.stages import bring
from jobs.console import done
from jobs.run_command import again, run_command, show_files


def main(arguments: Sequence[str]) -> int:
    return run_command("prepare", __doc__, _prepare, arguments)


def _prepare(session: Session) -> None:
    known = bring(session)
    show_files(session, "folds.csv", "rejected.csv", "duplicates.csv", "leaks.csv")
    done(f"{len(known.table)} photos are ready, in {known.table.fold_count} folds", again(session, "teacher"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
