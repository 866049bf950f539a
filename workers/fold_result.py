"""What a trained fold leaves: its kept weights, its predictions, its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from shared_store.records import Result
from shared_store.tables import Predictions, put_predictions
from workers.cost import measured_cost
from workers.fold_data import FoldData
from workers.metrics import all_metrics
from workers.model import model_bytes, multiply_adds, parameter_count
from workers.recipe import Recipe
from workers.story import Story
from workers.tasks import TrainTask
from workers.work import Work


@dataclass(frozen=True)
class Trained:
    """The weights that are kept, the epoch that they are of, and what they predict."""

    model: nn.Module
    kept_epoch: int
    held_out: Predictions
    selection: Predictions


def keep_result(
    trained: Trained, story: Story, task: TrainTask, work: Work, *, data: FoldData, clock: Callable[[], float]
) -> Result:
    """Put all blobs that the contract names into the store. The Result itself is the caller's to put."""
    store, model, recipe = work.store, trained.model, Recipe.model_validate(task.recipe)
    about = {"task": work.task, "model": recipe.model, "classes": list(task.classes)}
    blobs = {
        "model": store.put_blob(model_bytes(model, about)),
        "held_out": put_predictions(store, trained.held_out),
        "selection": put_predictions(store, trained.selection),
        "metrics": store.put_blob(story.metrics_csv()),
    }
    cost = measured_cost(model, recipe.image_size, torch.device(work.device), clock)
    numbers = all_metrics(trained.held_out.rows(data.scored), data.scored_labels) | {
        "kept_epoch": trained.kept_epoch,
        "epochs": story.epoch,
        "multiply_adds": multiply_adds(model, recipe.image_size),
        "parameters": parameter_count(model),
        "ms_per_image": cost.ms_per_image,
        "memory_mb": cost.memory_mb,
        "seconds": sum(row["seconds"] for row in story.history),
    }
    if story.micro_batch is not None:
        numbers["micro_batch"] = story.micro_batch
    return Result(work.task, work.spec, work.attempt, work.nonce, blobs, numbers)
