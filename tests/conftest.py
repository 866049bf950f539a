"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One mode for every Ray that a test process begins: the first one's is kept in the process, and actors of a later one
# of another mode die. The token is the tests' own: that in the home folder is left alone, and none is made there.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)

from pathlib import Path

import pytest
from hypothesis import settings

from shared_store.cache import Cache
from shared_store.store import Store, open_store

# The same examples in every run of CI; at a desk hypothesis goes on looking for new ones. Loaded machines are slow.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: tests that wait for Ray to notice something leave theirs idle."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", limit_gb=1.0)
