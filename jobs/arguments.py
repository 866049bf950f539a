"""The arguments that every command on a run takes: DATA, --config, --store, --run, and overrides of any section."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from pydantic import BaseModel

from coordinator.config import Experiment, scalar
from shared_store.errors import UserError

_RECIPES = "Several recipes in one run: --recipes.NAME.KEY VALUE for each key in which one differs from `recipe`."


@dataclass(frozen=True)
class RunArguments:
    """What names a run and what changes its configuration."""

    data: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[DATA]")] = None
    """Folder of class folders, or CSV (path, label, group, part). May be left out once the run has it."""
    config: str | None = None
    """YAML file; without it the run's own configuration, or the competition recipe."""
    store: str | None = None
    """Folder or URL where everything is kept (the section's store.url)."""
    run: str = "main"
    """Name of the run: its files are under runs/NAME/ in the store."""
    selection: str | None = None
    """Labelled photos to choose the ensemble on (data.selection)."""
    test: str | None = None
    """Photos to predict (data.test)."""
    take_over: bool = False
    """End whoever drives the run now (on a machine out of reach, say), and go on from here."""
    overrides: Annotated[tuple[tuple[str, object], ...], tyro.conf.Suppress] = ()


@dataclass(frozen=True)
class _WithSections(RunArguments):
    """The same with every key of every section, for the help text."""

    sections: Annotated[Experiment, tyro.conf.arg(name="")] = field(default_factory=Experiment)


def parse_arguments(name: str, story: str, arguments: Sequence[str]) -> RunArguments:
    """Read a command's arguments; `--help` prints them all and exits. UserError for one that is not known."""
    program = f"foldfleet {name}"
    if "-h" in arguments or "--help" in arguments:
        tyro.cli(_WithSections, prog=program, description=f"{story}\n\n{_RECIPES}", args=["--help"])
    rest, overrides_given = split_off_sections(arguments, program)
    known, unknown = tyro.cli(RunArguments, prog=program, description=story, args=rest, return_unknown_args=True)
    if unknown:
        raise _unknown(unknown[0], program)
    short = {"data.folder": known.data, "store.url": known.store}
    short |= {"data.selection": known.selection, "data.test": known.test}
    overrides: list[tuple[str, object]] = [(key, value) for key, value in short.items() if value is not None]
    overrides += overrides_given
    return dataclasses.replace(known, overrides=tuple(overrides))


def split_off_sections(words: Sequence[str], program: str) -> tuple[list[str], list[tuple[str, object]]]:
    """The words without `--recipe.epochs 3` or `--recipe.epochs=3`, and those as ("recipe.epochs", 3)."""
    rest: list[str] = []
    overrides: list[tuple[str, object]] = []
    left = list(words)
    while left:
        word = left.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in key:
            rest.append(word)
            continue
        if not equals:
            if not left or left[0].startswith("--"):
                raise UserError(f"--{key} has no value", where=program, mend=f"write --{key} VALUE")
            value = left.pop(0)
        overrides.append((key, scalar(value)))
    return rest, overrides


def _unknown(word: str, program: str) -> UserError:
    options = ["--config", "--store", "--run", "--selection", "--test", "--take-over", "--debug", "--help"]
    options += [f"--{section}.{key}" for section, keys in _section_keys().items() for key in keys]
    near = difflib.get_close_matches(word, options, n=2, cutoff=0.6)
    mend = f"did you mean {' or '.join(near)}?" if near else f"see {program} --help"
    return UserError(f"unknown argument {word}", where=program, mend=mend)


def _section_keys() -> dict[str, list[str]]:
    sections = {name: getattr(Experiment(), name) for name in Experiment.model_fields}
    return {name: list(type(value).model_fields) for name, value in sections.items() if isinstance(value, BaseModel)}
