"""What machines are asked when a fleet is examined, what they are held against, and this machine's own answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from coordinator.checks import Answer, Expected
from coordinator.config import Experiment
from coordinator.measured import FILE
from coordinator.remote import marked, what_it_says
from shared_store.store import Store, open_store
from workers.examine import Question, examine
from workers.examined import Examined
from workers.footprint import Footprint
from workers.recipe import Recipe

SECONDS = 300.0  # for a machine's answer
_MARK = "examined"


class Way(Protocol):
    """How machines are reached."""

    def examined(self, experiment: Experiment, with_store: bool) -> list[Answer]:
        """An answer for every machine, that of the one which the others are held against first."""

    def keep(self, text: str) -> None:
        """Keep what was measured where the coordinator will look for it."""


@dataclass(frozen=True)
class Alone:
    """This machine, by itself."""

    doors: Sequence[str]
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.time

    def examined(self, experiment: Experiment, with_store: bool) -> list[Answer]:
        self.tell("examining this machine ...")
        began = self.clock()
        found = examined_here(experiment, with_store, self.doors)
        return [Answer(found.host, found, began, self.clock())]

    def keep(self, text: str) -> None:
        """Not at all: there is nothing to place, and `plan` tries the recipe itself."""


def recipes_of(experiment: Experiment) -> dict[str, Recipe]:
    """By name; repeats are the same steps."""
    return {one.recipe_name: one.recipe for one in experiment.variants() if one.repeat == 0}


def question_of(experiment: Experiment, doors: Sequence[str]) -> Question:
    """What a machine is asked for this experiment."""
    return Question(recipes_of(experiment), experiment.fleet.threads, experiment.store.cache_folder, tuple(doors))


def expected(answers: Sequence[Answer], experiment: Experiment) -> Expected:
    """What the machines are held against. What a fold takes of a card is reckoned where there is one: seconds."""
    recipes, footprints = recipes_of(experiment), dict[str, Footprint]()
    if any(answer.examined.cards for answer in answers if answer.examined is not None):
        from workers.memory import footprint  # torch takes seconds to load

        found = {name: footprint(recipe) for name, recipe in recipes.items()}
        footprints = {name: one for name, one in found.items() if one is not None}
    return Expected(answers[0].examined if len(answers) > 1 else None, recipes, footprints)


def examined_here(experiment: Experiment, with_store: bool, doors: Sequence[str]) -> Examined:
    """This machine."""
    url, address = experiment.store.url, experiment.fleet.address

    def opens() -> Store:
        if url.startswith("head://") and address is not None:
            from coordinator.cluster import begin_ray  # Ray takes seconds to load

            begin_ray(address)
        return open_store(url)

    return examine(question_of(experiment, doors), opens if with_store else None, Path.home())


def keep_here(text: str) -> None:
    """Keep what was measured for the coordinator that will run on this machine."""
    path = Path.home() / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def to_text(examined: Examined) -> str:
    """One line for programs."""
    return marked(_MARK, examined.model_dump_json())


def from_text(output: str) -> Examined | None:
    """What a machine printed that was asked for such a line; None where it failed, or is of another version."""
    said = what_it_says(_MARK, output)
    try:
        return None if said is None else Examined.model_validate_json(said)
    except ValidationError:
        return None
