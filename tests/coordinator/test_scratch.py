"""A command's own folder: short, gone afterwards, and cleared away for those that were killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.scratch import Scratch


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return tmp_path


def test_a_folder_is_gone_after_close(parent: Path) -> None:
    scratch = Scratch(parent)
    (scratch.path / "log").write_text("x")
    scratch.close()
    assert list(parent.iterdir()) == []


def test_a_living_neighbour_is_left_alone(parent: Path) -> None:
    first, second = Scratch(parent), Scratch(parent)
    assert first.path != second.path and first.path.is_dir()
    first.close()
    assert second.path.is_dir()
    second.close()


def test_what_a_killed_command_left_is_cleared_away(parent: Path) -> None:
    code = "import os, sys; from pathlib import Path; from coordinator.scratch import Scratch\n"
    code += "kept = Scratch(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(parent)], check=False, timeout=60)
    (left,) = (path for path in parent.iterdir() if path.is_dir())
    Scratch(parent).close()
    assert not left.exists() and list(parent.iterdir()) == []


def test_a_long_parent_is_not_used_where_sockets_need_a_short_path() -> None:
    scratch = Scratch()
    assert len(str(scratch.path)) < 50
    scratch.close()
