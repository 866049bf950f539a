"""Who commits: nobody is told anything where the disk can tell, and one process alone commits where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from coordinator.committing import commits_alone, find_committer
from shared_store.store import Store

NO_LINKS = """
import errno, os

def link(*_, **__):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))

os.link = link
"""
TWICE = """
import sys
from coordinator.committing import commits_alone, find_committer
from shared_store.store import open_store

store = open_store(sys.argv[1])
find_committer(store, print)
assert commits_alone(store)
print(store.put_if_absent("results/one.json", b"first"), store.put_if_absent("results/one.json", b"second"))
"""


def test_a_disk_that_can_tell_is_left_as_it_is(store: Store) -> None:
    told: list[str] = []
    backend = store.backend
    find_committer(store, told.append)
    assert told == [] and store.backend is backend and not commits_alone(store)


def test_on_a_disk_without_links_this_process_commits_alone_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_LINKS)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    words = [sys.executable, "-c", TWICE, str(tmp_path / "store")]
    environment = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "So this computer alone commits" in ended.stdout
    assert ended.stdout.endswith("True False\n")
    assert (tmp_path / "store" / "results" / "one.json").read_bytes() == b"first"
