"""kill -9 at random times and at named points: every fold ends as if it had been left alone, and little work is lost.

The ordinary suite kills a dozen processes. `make chaos` kills 200; FOLDFLEET_CHAOS_KILLS, FOLDFLEET_CHAOS_SEED and
FOLDFLEET_CHAOS_STORE (local, sftp, s3) choose others.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from pathlib import Path

import pytest
from campaign import INTERVAL_STEPS, Campaign, loaded_processes
from store_kinds import UrlKind, running

KILLS = int(os.environ.get("FOLDFLEET_CHAOS_KILLS", "12"))
SEED = int(os.environ.get("FOLDFLEET_CHAOS_SEED", "0" if os.environ.get("CI") else str(random.randrange(10**6))))
STORE = os.environ.get("FOLDFLEET_CHAOS_STORE", "local")


@pytest.mark.timeout(1800)
def test_whoever_is_killed_whenever_every_fold_ends_as_if_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    with loaded_processes() as context, running(STORE, tmp_path / "stores") as kind:
        assert isinstance(kind, UrlKind), f"other processes cannot open {STORE}"
        with capsys.disabled():
            sys.stdout.write(f"\nFOLDFLEET_CHAOS_SEED={SEED} FOLDFLEET_CHAOS_STORE={STORE}\n")
        campaign = Campaign(context, SEED, tmp_path)
        for number in itertools.count(1):
            campaign.round(f"round{number}", f"{kind.base}/round{number}", dict(kind.environment), KILLS)
            if campaign.kills >= KILLS:
                break
    with capsys.disabled():
        sys.stdout.write(f"{campaign.report()}, in {time.monotonic() - began:.0f} s\n")
    assert max(lost for kind_of_kill in campaign.lost.values() for lost in kind_of_kill) <= INTERVAL_STEPS
