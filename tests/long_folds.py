"""Graphs of folds that train for hours, about no real data. No test in here."""

from __future__ import annotations

from typing import Any

from coordinator.config import Experiment
from coordinator.graph import Graph, Photos, build


def long_graph(rounds: int = 1, recipes: dict[str, dict[str, Any]] | None = None, **recipe: Any) -> Graph:
    """Three teachers of every recipe (100 epochs, no early stop), after which nothing but the search is left."""
    experiment = Experiment.model_validate(
        {
            "folds": {"count": 3},
            "distill": {"rounds": rounds},
            "recipe": {"epochs": 100, "patience": None, "batch_size": 12, **recipe},
            "recipes": recipes or {},
        }
    )
    return build(experiment, Photos("snapshot", "0" * 64), ("cat", "dog"), None)
