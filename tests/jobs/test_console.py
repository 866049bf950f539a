"""What every command shares with the terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.console import command, terminal


def test_a_terminal_that_cannot_write_a_name_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))

    def act(_: Sequence[str]) -> None:
        terminal().print("cats █ 猫 ünder", highlight=False)

    assert command("show", act, []) == 0
    assert written.getvalue().decode("latin-1") == "cats ? ? ünder\n"


def test_torch_leaves_nothing_in_the_folder_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    said: list[str] = []

    def act(_: Sequence[str]) -> None:
        code = "from torch._inductor.runtime.cache_dir_utils import cache_dir; print(cache_dir())"
        said.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    assert command("show", act, []) == 0
    assert said == [f"{tmp_path}/.cache/foldfleet/torch\n"]
