"""What the runs of a fleet leave on one machine that nothing disturbs. No test in here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fleet.fleet_run import Results, Size, events_in, results_in
from fleet.lab import ROOT
from fleet.makespan import epoch_seconds


class Alone:
    """Runs on this machine without a fleet, each made when first asked for."""

    def __init__(self, photos: Path, folder: Path) -> None:
        self._photos, self._folder = photos, folder

    def __call__(self, size: Size) -> Results:
        """What such a run leaves: what every one on the fleet must leave."""
        return results_in(self._store(size))

    def epoch_seconds(self, size: Size) -> float:
        """What an epoch took here."""
        [seconds] = epoch_seconds(events_in(self._store(size) / "runs/run/events.jsonl")).values()
        return seconds

    def _store(self, size: Size) -> Path:
        store = self._folder / f"{size.folds}x{size.epochs}"
        if not store.exists():
            command = [sys.executable, "-m", "jobs.cli", "student", str(self._photos), "--config", "configs/tiny.yaml"]
            command += ["--store", str(store), "--run", "run", *size.words]
            ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
            assert ran.returncode == 0, ran.stdout + ran.stderr
        return store
