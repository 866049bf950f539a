"""What every command shares with the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from jobs.console import command, terminal


def test_a_terminal_that_cannot_write_a_name_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))

    def act(_: Sequence[str]) -> None:
        terminal().print("cats █ 猫 ünder", highlight=False)

    assert command("show", act, []) == 0
    assert written.getvalue().decode("latin-1") == "cats ? ? ünder\n"
