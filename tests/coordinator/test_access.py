"""One token for a whole fleet, for its owner's eyes alone; no cluster is entered without it."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from coordinator.access import TOKEN, ensure_token, enter_fleet, keep_temporary_files, ray_environment
from shared_store.errors import UserError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = ensure_token(tmp_path)
    text = path.read_text()
    assert path == tmp_path / TOKEN and len(bytes.fromhex(text)) == 32 and mode(path) == 0o600
    assert ensure_token(tmp_path).read_text() == text


def test_a_token_that_ray_wrote_for_all_to_read_is_kept_and_closed(tmp_path: Path) -> None:
    path = tmp_path / TOKEN
    path.parent.mkdir()
    path.write_text("as it was")
    path.chmod(0o644)
    assert ensure_token(tmp_path).read_text() == "as it was" and mode(path) == 0o600


def test_an_empty_token_is_none(tmp_path: Path) -> None:
    path = tmp_path / TOKEN
    path.parent.mkdir()
    path.touch()
    with pytest.raises(UserError, match="does not have the fleet's token"):
        enter_fleet({}, tmp_path)
    assert ensure_token(tmp_path).read_text()


def test_a_process_with_the_token_gets_every_variable_and_keeps_those_that_it_has(tmp_path: Path) -> None:
    ensure_token(tmp_path)
    environment = {"OMP_NUM_THREADS": "4"}
    enter_fleet(environment, tmp_path)
    assert environment == ray_environment() | {"OMP_NUM_THREADS": "4"}
    assert environment["RAY_AUTH_MODE"] == "token"


def test_without_the_token_no_fleet_is_entered(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        enter_fleet({}, tmp_path)
    assert caught.value.where == str(tmp_path / TOKEN) and "foldfleet up" in caught.value.mend
    enter_fleet({"RAY_AUTH_TOKEN": "given"}, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(UserError, match="elsewhere"):
        enter_fleet({"RAY_AUTH_TOKEN_PATH": str(elsewhere)}, tmp_path)
    elsewhere.write_text("given")
    enter_fleet({"RAY_AUTH_TOKEN_PATH": str(elsewhere)}, tmp_path)


def test_a_fleet_whose_token_is_turned_off_is_refused(tmp_path: Path) -> None:
    ensure_token(tmp_path)
    with pytest.raises(UserError, match="RAY_AUTH_MODE is disabled"):
        enter_fleet({"RAY_AUTH_MODE": "disabled"}, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Ray keeps its files elsewhere on Windows")
def test_what_a_machines_ray_leaves_when_it_is_killed_lies_in_one_place(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    keep_temporary_files(environment, tmp_path)
    assert Path(environment["TMPDIR"]).is_relative_to(tmp_path) and Path(environment["TMPDIR"]).is_dir()
    assert environment["RAY_TMPDIR"] == "/tmp"
    given = {"TMPDIR": "/scratch"}
    keep_temporary_files(given, tmp_path)
    assert given["RAY_TMPDIR"] == "/scratch"
