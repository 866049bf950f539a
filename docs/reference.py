"""Writes reference.md from the code: every command with its own options, every setting. `make reference`."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from coordinator.config import Experiment, NeedsSection
from jobs.arguments import RunArguments
from jobs.cli import COMMANDS

PLACE = Path(__file__).with_name("reference.md")
HEAD = """\
# Reference

Made from the code by `make reference`; a test says when it is out of date.

A setting stands in the YAML file of `--config`, in its section, or on the command line: `--recipe.epochs 3`.
Sections and keys may be left out. `null` means none.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD, "## Commands\n", *_commands()]
    for name, field in Experiment.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            parts += [f"## `{name}`\n", _settings(model, name)]
        else:
            parts += [f"## `{name}`\n", f"{_documented(Experiment)[name]}\n"]
    parts += ["## `fleet.needs.NAME`\n", _settings(NeedsSection, "fleet.needs.NAME")]
    return "\n".join(parts)


def _commands() -> list[str]:
    rows = []
    for name, what in COMMANDS.items():
        module = importlib.import_module(f"jobs.{name}")
        own = [
            one for one in vars(module).values() if dataclasses.is_dataclass(one) and one.__module__ == f"jobs.{name}"
        ]
        options = [
            field.name for kind in own for field in dataclasses.fields(kind) if not _is_positional(kind, field.name)
        ]
        told = ", ".join(f"`--{_in_words(kind_option)}`" for kind_option in dict.fromkeys(options))
        run = "" if "run_command" not in vars(module) else "those of a run"
        rows.append(f"| `{name}` | {what} | {'; '.join(text for text in (run, told) if text)} |")
    table = ["| command | what it does | options |", "|---|---|---|", *rows]
    about = _documented(RunArguments)
    run_rows = [
        f"| `{'[DATA]' if field.name == 'data' else '--' + _in_words(field.name)}` | {about[field.name]} |"
        for field in dataclasses.fields(RunArguments)
        if field.name in about
    ]
    return [
        *("\n".join(table), "\nEach tells its arguments with `--help`; `--debug` adds the traceback to an error.\n"),
        *("Those of a run, besides every setting below:\n", "| | |", "|---|---|", *run_rows, ""),
    ]


def _in_words(name: str) -> str:
    return {"within": "in"}.get(name, name).replace("_", "-")


def _is_positional(kind: Any, name: str) -> bool:
    return "Positional" in str(inspect.get_annotations(kind).get(name)) or str(kind.__annotations__[name]) == "Url"


def _settings(model: type[BaseModel], path: str) -> str:
    about, rows, inner = _documented(model), [], []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner.append(f"### `{path}.{name}`\n\n{_settings(field.annotation, f'{path}.{name}')}")
            continue
        default = field.get_default(call_default_factory=True)
        assert default is not PydanticUndefined, f"{path}.{name} has no default"
        words = about.get(name, "").replace("None", "null")
        rows.append(f"| `{name}` | {_taken(model, name)} | `{_value(default)}` | {words} |")
    return "\n".join(["| key | takes | default | |", "|---|---|---|---|", *rows, "", *inner])


def _taken(model: type[BaseModel], name: str) -> str:
    """What a key takes, from the model's own schema."""
    schema: dict[str, Any] = model.model_json_schema()["properties"][name]
    forms = [_form(one) for one in schema.get("anyOf", [schema])]
    return " or ".join(form for form in forms if form)


def _form(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(
            f"`{value}`" if value != "" else "nothing" for value in schema.get("enum", [schema.get("const")])
        )
    if schema.get("type") == "array":
        return f"a list of {_form(schema['items'])}"
    kinds = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
    kinds |= {"object": "a mapping", "null": "`null`"}
    kind = kinds[schema["type"]]
    limits = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    told = [f"{word} {_number(schema[key])}" for key, word in limits.items() if key in schema]
    return " ".join([kind, *told])


def _number(value: float) -> str:
    return f"{value:g}" if value < 1e6 else str(int(value))


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).replace("None", "null").lower()
    return '""' if value == "" else ", ".join(value) if isinstance(value, tuple) else str(value)


def _documented(kind: type) -> dict[str, str]:
    """The words below each attribute of a class, in one line."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for line, below in zip(body.body, body.body[1:], strict=False):
        match line, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                found[name] = " ".join(words.split()).replace("|", "\\|")
    return found


def main() -> int:
    PLACE.write_text(reference(), encoding="utf-8")
    sys.stdout.write(f"wrote {PLACE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
