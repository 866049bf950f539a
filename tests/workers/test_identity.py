"""A machine's id: made once, the same ever after, never guessed from a damaged file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from shared_store.errors import UserError
from workers.identity import machine_id


def test_an_id_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first = machine_id(tmp_path / "one")
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert machine_id(tmp_path / "one") == first != machine_id(tmp_path / "two")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["machine_id"]
    if sys.platform != "win32":
        assert (tmp_path / "one" / "machine_id").stat().st_mode & 0o777 == 0o600


def test_a_damaged_id_is_named(tmp_path: Path) -> None:
    (tmp_path / "machine_id").write_text("half", encoding="ascii")
    with pytest.raises(UserError, match="damaged"):
        machine_id(tmp_path)
