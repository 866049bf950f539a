"""What the person set about machines, as the rules that the ledger and the plan go by. Pure."""

from __future__ import annotations

from coordinator.config import FleetSection, NeedsSection
from coordinator.graph import Graph
from coordinator.retry import Budgets, Needs, Rules
from coordinator.variants import recipe_of
from shared_store.errors import UserError
from workers.tasks import TrainTask

ALL = "all"


def rules_of(settings: FleetSection, graph: Graph) -> Rules:
    """The rules for the tasks of `graph`. Pins and needs are for folds; all else runs on any machine."""
    names = {task: value.name for task, value in graph.tasks.items() if isinstance(value, TrainTask)}
    pins = {task: machine for task, name in names.items() if (machine := _pinned(settings.pin, name)) is not None}
    needs = {task: needed for task, name in names.items() if (needed := _needs(settings, name)) != Needs()}
    return Rules(Budgets(crashes=settings.attempts), pins, needs, 60 * settings.hang_minutes)


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


def _needs(settings: FleetSection, name: str) -> Needs:
    """What the recipe's own entry says, and else what is said of all."""
    common, own = (settings.needs.get(key, NeedsSection()) for key in (ALL, recipe_of(name) or ALL))
    return Needs(own.memory_gb or common.memory_gb, own.system or common.system, own.label or common.label)


def _unknown(what: str, where: str, kind: str, known: list[str]) -> UserError:
    return UserError(
        f"{what} names a {kind} that this run does not have", where=where, mend=f"known: {', '.join(known)}"
    )
