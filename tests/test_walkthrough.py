"""The tutorial and the how-tos as a reader follows them: their commands run in order in one folder, and all end well.

`foldfleet ...` runs in this process (loading torch each time would take longer than the work), the rest in a shell.
configs/small.yaml, which trains for minutes, is a tiny one here.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from support import digits_folder

from coordinator.config import parse
from jobs import cli

ROOT = Path(__file__).parents[1]
PAGES = ("tutorial.md", "how-to.md")
ELSEWHERE = {
    "scp HEAD:.ray/auth_token ~/.ray/": "needs the head of a fleet (tests/fleet joins real hosts)",
    "foldfleet join HEAD:6379 --name rented --until 07:00": "needs the head of a fleet (tests/fleet joins real hosts)",
}
CLASSES = {"digit_0": "fine", "digit_1": "broken", "digit_2": "rare"}


def blocks() -> list[tuple[str, str]]:
    """(language, text) of every fenced block, in the reader's order."""
    text = "\n".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES)
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A reader's folder: photos, new, configs/small.yaml."""
    everything = digits_folder(tmp_path / "all", per_class=14, classes=3)
    for label, name in CLASSES.items():
        photos = sorted((everything / label).iterdir())
        for photo in photos:
            folder = tmp_path / ("new" if photo in photos[12:] else f"photos/{name}")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, folder)
    (tmp_path / "configs").mkdir()
    tiny = (ROOT / "configs" / "tiny.yaml").read_text(encoding="utf-8")
    tiny = tiny.replace("count: 3", "count: 2").replace("epochs: 4", "epochs: 2")
    (tmp_path / "configs" / "small.yaml").write_text(tiny, encoding="utf-8")
    return tmp_path


def test_a_reader_gets_what_the_pages_promise(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    elsewhere = set()
    for language, text in blocks():
        if language == "yaml":
            assert len(parse(text, "how-to.md").variants()) == 2
            Path("two.yaml").write_text(text, encoding="utf-8")
        elif language == "python":
            Path("own.py").write_text(text, encoding="utf-8")
            broken, other = Path("new/broken.jpg"), Path("new/other.PNG")
            broken.write_bytes(b"no photo")
            Image.new("RGB", (60, 40), "red").save(other)
            capsys.readouterr()
            runpy.run_path("own.py")
            told = capsys.readouterr().out.splitlines()
            assert [line.split()[0] for line in told] == sorted(photo.name for photo in Path("new").iterdir())
            assert told.pop(0).startswith("broken.jpg cannot be read: not a JPEG")
            assert {line.split()[1] for line in told} <= set(CLASSES.values())
            broken.unlink()
            other.unlink()
        else:
            assert language == "sh"
            for line in text.splitlines():
                if line in ELSEWHERE:
                    elsewhere.add(line)
                elif line.startswith("foldfleet "):
                    monkeypatch.setattr("sys.argv", shlex.split(line))
                    assert cli.main() == 0, f"{line}\n{capsys.readouterr().err}"
                else:
                    assert subprocess.run(line, shell=True, check=False).returncode == 0, line
    assert elsewhere == set(ELSEWHERE)
    assert len(pd.read_csv("answers/predictions.csv")) == len(list(Path("new").iterdir())) == 6
    for file in ("report.html", "suspects.png", "predictions.csv", "tensorboard/teacher-fold0"):
        assert (desk / "store" / "runs" / "first" / file).exists(), file
