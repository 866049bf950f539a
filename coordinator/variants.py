"""What is trained on every fold: each recipe of an experiment, once a repeat; and how tasks are named after it. Pure.

A name says only what the task itself is, never what else the run has: `teacher/fold0` of the one unnamed recipe,
`teacher/b4/fold0` of the recipe named b4, `teacher/b4/repeat1/fold0` when it is trained again. So a recipe or a repeat
that joins a run later changes no other task's id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from workers.recipe import Recipe
from workers.tasks import UNCOUNTED

Overrides = Mapping[str, Mapping[str, Any]]
"""By a recipe's name: the keys in which it differs from the section `recipe`."""

_NAME = re.compile(r"(?!(fold|repeat)\d*$)[a-z][a-z0-9_]{0,31}")
_HASH_LENGTH = 17  # "-" and 16 hex digits, at the end of a task id
_SEEDS = 2**31


@dataclass(frozen=True)
class Variant:
    """One recipe in one repeat. `recipe_name` is empty for the one recipe of an experiment that names none."""

    recipe_name: str
    repeat: int  # counted from 0
    recipe: Recipe  # with the repeat's own seed

    @property
    def name(self) -> str:
        """``, `b4`, `repeat1` or `b4/repeat1`: what stands between a task's kind and its fold."""
        return "/".join(part for part in (self.recipe_name, f"repeat{self.repeat}" if self.repeat else "") if part)

    def task_name(self, kind: str, fold: str) -> str:
        return "/".join(part for part in (kind, self.name, fold) if part)


def variants_of(base: Recipe, overrides: Overrides, repeats: int) -> tuple[Variant, ...]:
    """Every recipe in every repeat, the first repeats first: those alone are what the experiment was without more."""
    recipes = {name: Recipe.model_validate(_merged(base, keys)) for name, keys in overrides.items()} or {"": base}
    return tuple(
        Variant(name, repeat, recipe.model_copy(update={"seed": (recipe.seed + repeat) % _SEEDS}))
        for repeat in range(repeats)
        for name, recipe in recipes.items()
    )


def check_recipes(base: Recipe | None, overrides: Overrides) -> None:
    """ValidationError with every mistake in `overrides`, each at (name of the recipe, key).

    Without a sound `base` (its own mistakes are told elsewhere) only the keys themselves can be judged.
    """
    found: list[InitErrorDetails] = []
    known: dict[Recipe, str] = {}
    for name, keys in overrides.items():
        if not _NAME.fullmatch(name):
            found.append(
                _mistake(name, "a recipe's name has small letters, digits and _, and is not like fold0, repeat1")
            )
        try:
            recipe = Recipe.model_validate(_merged(base or Recipe(), keys))
        except ValidationError as error:
            found += _located(name, keys, error, with_whole=base is not None)
            continue
        twin = known.setdefault(recipe.model_copy(update=dict.fromkeys(UNCOUNTED)), name)
        if twin != name:
            found.append(_mistake(name, f"the same as recipes.{twin}: folds.repeats trains a recipe again"))
    if found:
        raise ValidationError.from_exception_data("recipes", found)


def recipe_lines(variants: Sequence[Variant]) -> list[str]:
    """`recipe b4: tf_efficientnet_b4, 380 px, batch 32, 12 epochs`, a line each; with repeats, how many times."""
    repeats = 1 + max(variant.repeat for variant in variants)
    again = f", {repeats} times" if repeats > 1 else ""
    return [
        f"{f'recipe {variant.recipe_name}'.strip()}: {recipe.model}, {recipe.image_size} px, "
        f"batch {recipe.batch_size}, {recipe.epochs} epochs{again}"
        for variant in variants
        if variant.repeat == 0
        for recipe in [variant.recipe]
    ]


def recipe_of(task_name: str) -> str:
    """The name of the recipe that a task with this name belongs to; empty for the unnamed one and for no recipe's."""
    parts = task_name.split("/")
    return parts[1] if len(parts) > 2 and _NAME.fullmatch(parts[1]) else ""


def section_of(recipe_name: str) -> str:
    """Where a person writes what the recipe of this name is."""
    return f"recipes.{recipe_name}" if recipe_name else "recipe"


def member_names(task_ids: Sequence[str]) -> tuple[str, ...]:
    """`teacher-b4-fold0-1-1f3a9c0e5d7b2468` -> `teacher/b4/fold0-1`; whole ids where two would share a name.

    A name's parts begin with a letter, so that a dash before a digit is the name's own.
    """
    names = tuple(re.sub(r"-(?!\d)", "/", task[:-_HASH_LENGTH]) for task in task_ids)
    return names if len(set(names)) == len(names) else tuple(task_ids)


def _merged(base: Recipe, keys: Mapping[str, Any]) -> dict[str, Any]:
    values = {**base.model_dump(), **keys}
    if isinstance(keys.get("augmentation"), Mapping):
        values["augmentation"] = {**base.augmentation.model_dump(), **keys["augmentation"]}
    return values


def _located(
    name: str, keys: Mapping[str, Any], error: ValidationError, with_whole: bool
) -> Iterator[InitErrorDetails]:
    for details in error.errors(include_url=False):
        if details["loc"]:
            place = InitErrorDetails(type=details["type"], loc=(name, *details["loc"]), input=details["input"])
            yield {**place, "ctx": details["ctx"]} if "ctx" in details else place
        elif with_whole:
            yield {**_mistake(name, details["msg"].removeprefix("Value error, ")), "input": dict(keys)}


def _mistake(name: str, what: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("recipe", what), loc=(name,), input=name)
