"""A fold's learner and story at the beginning of an attempt: new, or as a commit left them."""

from __future__ import annotations

from shared_store.errors import UserError
from workers.loop import Learner
from workers.model import empty_model, initial_model, seed_of
from workers.recipe import Recipe
from workers.resume import Resumed
from workers.story import Story
from workers.tasks import TrainTask
from workers.weights_file import weights_sha256


def begin(task: TrainTask, recipe: Recipe, device: str, resumed: Resumed | None) -> tuple[Learner, Story]:
    """What the attempt trains and writes down. UserError when the weights, or the commit, do not fit this machine.

    `recipe`: the task's, with the micro-batch of this attempt.
    """
    classes = len(task.classes)
    if resumed is None:
        _check_weights(recipe.weights, task.weights_sha256)
        model = initial_model(recipe, classes, seed_of("weights", recipe.seed, task.held_out))
        return Learner(recipe, model, device, (task.held_out,)), Story()
    learner = Learner(recipe, empty_model(recipe, classes), device, (task.held_out,))
    try:
        learner.load(resumed.state["learner"])
    except ValueError as error:
        what = f"the checkpoint does not fit this machine's timm: {error}"
        mend = "use the versions of torch and timm that it was begun with, or another recipe.seed to begin anew"
        raise UserError(what, where=f"{task.name}, {resumed.name}", mend=mend) from error
    return learner, Story(**resumed.state["story"])


def recipe_of(task: TrainTask, micro_batch: int | None) -> Recipe:
    """The task's recipe; `micro_batch` takes the place of its own in one attempt, and must divide its batch."""
    recipe = Recipe.model_validate(task.recipe)
    if micro_batch is None:
        return recipe
    assert recipe.batch_size % micro_batch == 0, f"{task.name}: {micro_batch} does not divide {recipe.batch_size}"
    return recipe.model_copy(update={"micro_batch": micro_batch})


def _check_weights(source: str, expected: str) -> None:
    """The pretrained weights must be those that the task was named for."""
    if expected and weights_sha256(source) != expected:
        mend = "put the same file there on every machine; if it was changed on purpose, give the command again"
        raise UserError("the pretrained weights are not there, or not the ones given", where=source, mend=mend)
