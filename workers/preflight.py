"""What can be known to be wrong with a recipe before any fold starts."""

from __future__ import annotations

from workers.model import initial_model
from workers.optimize import create_optimizer
from workers.recipe import Recipe
from workers.recompute import check_recomputing


def check_recipe(recipe: Recipe) -> None:
    """Build the network, its weights and its optimizer once, on the CPU; timm's weights are fetched here, not by folds.

    UserError for an unknown model or optimizer, weights that cannot be had or do not fit, or a network that knows no
    checkpointing.
    """
    model = initial_model(recipe, classes=2, seed=0)
    create_optimizer(model, recipe)
    if recipe.checkpointing:
        check_recomputing(model, recipe.model)
