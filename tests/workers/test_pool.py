"""Jobs give the same answers in order whoever does them; a process that dies is said in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from shared_store.errors import UserError
from workers.photo import read_photo
from workers.pool import pooled


def whose(number: int) -> tuple[int, int]:
    return number, os.getpid()


def die(number: int, here: int) -> int:
    if os.getpid() != here:
        os._exit(1)
    return number


def test_little_work_starts_no_process() -> None:
    answers = list(pooled(whose, [(n,) for n in range(100)], 2))
    assert answers == [(n, os.getpid()) for n in range(100)]


def test_one_process_is_this_one() -> None:
    assert {pid for _, pid in pooled(whose, [(n,) for n in range(30)], 1, pool_pays_seconds=0)} == {os.getpid()}


def test_much_work_goes_to_others_and_photos_are_the_same(tmp_path: Path) -> None:
    for number in range(24):
        Image.new("RGB", (40 + number, 30), (number * 10, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "7.png").write_bytes(b"")
    jobs = [(str(tmp_path / f"{n}.png"), str(tmp_path / f"{n}.kept"), 32) for n in range(24)]
    alone = list(pooled(read_photo, jobs, 1))
    kept = [(tmp_path / f"{n}.kept").read_bytes() for n in range(24) if n != 7]
    together = list(pooled(read_photo, jobs, 2, pool_pays_seconds=0))
    assert together == alone
    assert alone[7] == "the file is empty"
    assert [(tmp_path / f"{n}.kept").read_bytes() for n in range(24) if n != 7] == kept


def test_the_script_that_asks_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "story.py"
    script.write_text(
        "import os, workers.pool\n"
        f"open({str(tmp_path / 'ran')!r}, 'a').write('once ')\n"
        "answers = list(workers.pool.pooled(os.path.basename, [('a/b',)] * 20, 2, pool_pays_seconds=-1))\n"
        "assert answers == ['b'] * 20\n"
    )  # without the guard that such scripts need
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, str(script)], check=True, timeout=120, env={**os.environ, "PYTHONPATH": str(root)})
    assert (tmp_path / "ran").read_text() == "once "


def test_a_process_that_dies_is_said_in_words() -> None:
    with pytest.raises(UserError, match="a process that handles photos died") as error:
        list(pooled(die, [(n, os.getpid()) for n in range(20)], 2, pool_pays_seconds=0))
    assert "fewer processes" in error.value.mend
