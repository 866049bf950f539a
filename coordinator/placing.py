"""What the person set about machines, as the rules that the ledger and the plan go by. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.config import FleetSection, NeedsSection
from coordinator.graph import Graph
from coordinator.retry import SETTLE_SECONDS, Budgets, Needs, Rules
from coordinator.variants import recipe_of
from shared_store.errors import UserError
from workers.footprint import Footprint
from workers.tasks import TrainTask

ALL = "all"


def rules_of(settings: FleetSection, graph: Graph, footprints: Mapping[str, Footprint] | None = None) -> Rules:
    """The rules for the tasks of `graph`. Pins and needs are for folds; all else runs on any machine.

    `footprints`: what folds take of a card, by the names of their recipes, where that was reckoned.
    """
    reckoned = footprints or {}
    names = {task: value.name for task, value in graph.tasks.items() if isinstance(value, TrainTask)}
    pins = {task: machine for task, name in names.items() if (machine := _pinned(settings.pin, name)) is not None}
    needs = {task: needed for task, name in names.items() if (needed := _needs(settings, name, reckoned)) != Needs()}
    settle_seconds = 0.0 if settings.address is None else SETTLE_SECONDS  # nobody joins an embedded Ray
    return Rules(Budgets(crashes=settings.attempts), pins, needs, 60 * settings.hang_minutes, settle_seconds)


def check_placing(settings: FleetSection, graph: Graph) -> None:
    """UserError for a pin or a need of something that the run does not have. `graph`: the whole run's."""
    names = [task.name for task in graph.tasks.values() if isinstance(task, TrainTask)]
    for key in settings.pin:
        if not any(_is_meant(key, name) for name in names):
            raise _unknown("a pin", f"fleet.pin: {key}", "fold", names)
    recipes = sorted({recipe_of(name) for name in names} - {""})
    for key in settings.needs:
        if key not in (ALL, *recipes):
            raise _unknown("a need", f"fleet.needs: {key}", "recipe", [ALL, *recipes])


def _pinned(pins: dict[str, str], name: str) -> str | None:
    """The machine of the key that says most: `student/fold1` comes before `fold1`."""
    meant = [key for key in pins if _is_meant(key, name)]
    return pins[max(meant, key=lambda key: (key.count("/"), key))] if meant else None


def _is_meant(key: str, name: str) -> bool:
    """`fold1` means `teacher/fold1` and `student/b4/repeat1/fold1`; `student/fold1` and `b4/fold1` the second alone."""
    parts, last = iter(name.split("/")), name.rsplit("/", maxsplit=1)[-1]
    return key.rsplit("/", maxsplit=1)[-1] == last and all(part in parts for part in key.split("/"))


def _needs(settings: FleetSection, name: str, footprints: Mapping[str, Footprint]) -> Needs:
    """What the recipe's own entry says, and else what is said of all; memory that nobody speaks of is reckoned."""
    recipe = recipe_of(name)
    common, own = (settings.needs.get(key, NeedsSection()) for key in (ALL, recipe or ALL))
    memory_gb = own.memory_gb or common.memory_gb
    footprint = None if memory_gb else footprints.get(recipe)
    return Needs(memory_gb, own.system or common.system, own.label or common.label, footprint)


def _unknown(what: str, where: str, kind: str, known: list[str]) -> UserError:
    return UserError(
        f"{what} names a {kind} that this run does not have", where=where, mend=f"known: {', '.join(known)}"
    )
