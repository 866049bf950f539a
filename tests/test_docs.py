"""What the documents say is there: commands, options, settings, files; and reference.md is the code's."""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

from coordinator.config import parse
from docs import reference
from jobs.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ANYWHERE = {"--debug", "--help"}  # of every command, and told once


def said(page: Path) -> Iterator[str]:
    """Every command line in a page: lines of code, and what stands between backticks."""
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        for span in [line] if fenced or line.startswith("    ") else re.findall(r"`([^`]+)`", line):
            code = re.sub(r".*jobs/(\w+)\.py( --)?", r"foldfleet \1", span.partition("  #")[0])
            _, command, words = code.partition("foldfleet ")
            if command and re.match(r"[a-z]+\b", words):
                yield words


@cache
def options(command: str) -> frozenset[str]:
    """What a command's own help names."""
    shown = io.StringIO()
    words = [[kind, "--help"] for kind in ("check", "ls", "gc")] if command == "store" else [["--help"]]
    for each in words:
        with redirect_stdout(shown), pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", "200")
            try:
                importlib.import_module(f"jobs.{command}").main(each)
            except SystemExit as end:
                assert end.code in (0, None)
    return frozenset(plain(word) for word in re.findall(r"--[a-z][\w.-]*", shown.getvalue())) | ANYWHERE


def plain(option: str) -> str:
    """`--recipe.image_size` and `--recipe.image-size` are one; a recipe's name stands for all."""
    return re.sub(r"^--recipes\.\w+\.", "--recipe.", option.rstrip(".")).replace("_", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    wrong = []
    for words in said(page):
        name = words.split()[0]
        if name not in COMMANDS:
            wrong.append(words)
            continue
        given = re.findall(r"(?<=[\s\[])--[a-z][\w.-]*", words)
        wrong += [f"{name} {option}" for option in given if plain(option) not in options(name)]
    assert wrong == []


def test_the_table_of_commands_names_all_of_them_and_no_option_that_is_not_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)(.*?)` \|", text.partition("## Commands")[2].partition("## What a run")[0], re.MULTILINE
    )
    for name, words in rows:
        missing = [one for one in re.findall(r"--[a-z][\w.-]*", words) if plain(one) not in options(name)]
        assert missing == [], name
    of_a_fleet = {"up", "down", "machines", "join", "drain"}  # docs/operating.md
    assert {name for name, _ in rows} == set(COMMANDS) - of_a_fleet


def test_reference_md_is_up_to_date() -> None:
    assert reference.PLACE.read_text(encoding="utf-8") == reference.reference(), "run `make reference`"


def test_every_setting_is_explained() -> None:
    keys = {line.split("`")[1] for line in reference.reference().splitlines() if re.fullmatch(r"\| `.*\|  \|", line)}
    plainly = {"seed", "epochs", "learning_rate", "weight_decay", "clip_limit", "label_smoothing", "dropout"}
    assert keys <= plainly | {"flip", "vertical_flip", "rotate_degrees", "system", "down", "demo", "completion"}, (
        "add a docstring"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_points_to_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    named = re.findall(r"`((?:docs|configs|tests|bench|jobs)/[\w./]+\.\w+)`", text)
    assert missing + [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_maps_every_document_and_configuration() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for folder, kind in (("docs", "*.md"), ("configs", "*.yaml")):
        assert [file.name for file in sorted((ROOT / folder).glob(kind)) if f"`{file.name}`" not in text] == []


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda config: config.name)
def test_the_configurations_are_sound(config: Path) -> None:
    assert parse(config.read_text(encoding="utf-8"), config.name).variants()
