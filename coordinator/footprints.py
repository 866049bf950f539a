"""What the folds of a run take of a card: reckoned before any starts, told, and held against the cards there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from coordinator.config import Experiment
from coordinator.fit import memory_refusal
from coordinator.graph import Graph
from coordinator.ledger import Ledger
from coordinator.scenario import MachineModel
from coordinator.unfit import too_large
from coordinator.variants import recipe_of
from workers.footprint import Footprint
from workers.tasks import TrainTask

Footprints = Mapping[str, Footprint]
"""By the recipe's name; a recipe that cannot be reckoned has none."""


def reckon(experiment: Experiment, graph: Graph, say: Callable[[str], None]) -> Footprints:
    """What a fold of each recipe that `graph` trains takes of a card, and say it: seconds of processor time each.

    UserError for a recipe that cannot be trained.
    """
    from workers.memory import footprint  # torch takes seconds to load

    trained = {recipe_of(task.name) for task in graph.tasks.values() if isinstance(task, TrainTask)}
    found: dict[str, Footprint] = {}
    for variant in experiment.variants():
        name = variant.recipe_name
        if variant.repeat == 0 and name in trained:
            known = footprint(variant.recipe)
            said = "cannot be reckoned for this network; it is tried" if known is None else known.text()
            say(f"{f'card memory {name}'.strip()}: {said}")
            found |= {} if known is None else {name: known}
    return found


def fit_lines(footprints: Footprints, machines: Iterable[MachineModel]) -> list[str]:
    """`  b4 on 1060 (6 GB): fits with micro_batch 1`, a line for each recipe and each card whose memory is known."""
    cards = [model for model in machines if model.gpu and model.memory_gb is not None]
    return [
        f"  {name or 'recipe'} on {model.name} ({model.memory_gb:g} GB): {known.fits_text(model.memory_gb, model.bits)}"
        for name, known in footprints.items()
        for model in cards
        if model.memory_gb is not None
    ]


def refuse_too_large(experiment: Experiment, ledger: Ledger) -> None:
    """UserError for the first task that every machine here is too small for, with what would fit the largest."""
    found = too_large(ledger)
    if found is None:
        return
    from workers.memory import spared_footprint

    task, needs, largest = found
    recipes = {variant.recipe_name: variant.recipe for variant in experiment.variants() if variant.repeat == 0}
    raise memory_refusal(task, needs, largest, spared_footprint(recipes[recipe_of(task.name)]))
