"""Uploads to a store that is far away: they keep to their share of the link until somebody is in a hurry."""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from faulty import MemoryBackend
from support import RecordingReporter

from shared_store.backend import PART_BYTES, Content
from shared_store.cache import Cache
from shared_store.commits import last_commit
from shared_store.store import Store
from workers.checkpoint import Checkpoints
from workers.tier import open_tier
from workers.work import Work

TASK = "teacher-fold0-1"
NO_SHARE = 1e-9  # of the link: after the first part, an upload waits as good as for ever


class FarBackend(MemoryBackend):
    """Takes its time for each part, and tells when the second one is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.sent = threading.Event(), 0

    def publish(self, key: str, content: Content) -> None:
        for part in content:
            self.sent += len(part)
            threading.Event().wait(0.001)
            self.waits.set()
        super().publish(key, Content(content.path or b""))


def attempt(tmp_path: Path, backend: FarBackend) -> Checkpoints:
    store = Store(backend)
    work = Work(TASK, "5" * 64, 1, "nonce", store, Cache(tmp_path, 1.0), RecordingReporter(), upload_share=NO_SHARE)
    return Checkpoints(work, open_tier(tmp_path, store.url))


def state() -> dict[str, torch.Tensor]:
    return {"weights": torch.rand(PART_BYTES)}  # four parts


def test_training_is_not_kept_waiting_by_a_slow_link_and_a_hurry_ends_its_waiting(tmp_path: Path) -> None:
    backend = FarBackend()
    with attempt(tmp_path, backend) as checkpoints:
        checkpoints.resume()
        for number in range(1, 4):
            assert checkpoints.commit(state(), (0, number))
            checkpoints.land()
        assert backend.waits.wait(60)
        assert last_commit(Store(backend), TASK) is None
        assert checkpoints.settle()
    newest = last_commit(Store(backend), TASK)
    assert newest is not None and newest.step == 3


def test_an_upload_that_nobody_needs_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    backend = FarBackend()
    with attempt(tmp_path, backend) as checkpoints:
        checkpoints.resume()
        assert checkpoints.commit(state(), (0, 1), ("weights",))
        checkpoints.land()
        assert backend.waits.wait(60)
        checkpoints.close()
    assert backend.kept == {}
    assert backend.sent < 4 * PART_BYTES


def test_what_is_sent_whole_when_an_upload_is_given_up_is_taken_back(tmp_path: Path) -> None:
    class QuickAtFirst(FarBackend):
        def publish(self, key: str, content: Content) -> None:
            if self.kept:
                super().publish(key, content)
            else:
                MemoryBackend.publish(self, key, Content(content.path or b""))

    backend = QuickAtFirst()
    with attempt(tmp_path, backend) as checkpoints:
        checkpoints.resume()
        assert checkpoints.commit({"small": {"bias": torch.zeros(3)}, **state()}, (0, 1), ("small",))
        checkpoints.land()
        assert backend.waits.wait(60)
        assert len(backend.kept) == 1
        checkpoints.close()
    assert backend.kept == {}


def test_the_upload_under_way_keeps_its_bytes_while_newer_commits_land(tmp_path: Path) -> None:
    backend = FarBackend()
    with attempt(tmp_path, backend) as checkpoints:
        checkpoints.resume()
        assert checkpoints.commit(state(), (0, 1))
        checkpoints.land()
        assert backend.waits.wait(60)
        for number in range(2, 6):
            assert checkpoints.commit(state(), (0, number))
            checkpoints.land()
        assert checkpoints.settle()
        assert checkpoints.commit(state(), (0, 6))
        assert checkpoints.settle()
    newest = last_commit(Store(backend), TASK)
    assert newest is not None and (newest.number, newest.step) == (3, 6), "the one under way, the newest, the last"
    tier = open_tier(tmp_path, "memory")
    assert len(tier.list("blobs/")) == 2, "what was held back is gone by now"
