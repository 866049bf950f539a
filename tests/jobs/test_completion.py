"""Shells complete commands and options by what the commands' own help says."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from coordinator.shells import bash_script
from jobs.cli import COMMANDS
from jobs.completion import KINDS, main, options_of


@pytest.fixture(scope="module")
def script() -> str:
    """The script for bash, as a person gets it."""
    options = {name: options_of(name) for name in ("pipeline", "status", "store")}
    return bash_script(COMMANDS, options, KINDS)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("foldfleet pipe", "pipeline"),
        ("foldfleet pipeline --recipe.ep", "--recipe.epochs"),
        ("foldfleet status --w", "--watch"),
        ("foldfleet store g", "gc"),
        ("foldfleet store gc --gr", "--grace-hours"),
        ("foldfleet completion z", "zsh"),
        ("foldfleet pipeline PHO", ""),  # bash itself completes files
    ],
)
def test_a_real_bash_completes_what_was_begun(script: str, line: str, completed: str) -> None:
    ask = f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _foldfleet; echo ${{COMPREPLY[*]}}"
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == completed and not done.stderr


def test_an_unknown_shell_is_told_which_ones_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tcsh"]) == 2
    assert "bash, zsh or fish" in capsys.readouterr().err
