"""Activations computed again in backward: the same bits, in every way a step can go, and less memory."""

from __future__ import annotations

import pytest
import timm
import torch
from support import digit_rows

from shared_store.errors import UserError
from workers.images import ImageSet, one_hot
from workers.loop import Learner
from workers.memory import training_memory
from workers.model import initial_model
from workers.preflight import check_recipe
from workers.recipe import Augmentation, Recipe
from workers.recompute import can_recompute
from workers.tasks import TrainTask, spec_hash

RECIPE = Recipe(
    model="test_efficientnet", weights="none", image_size=32, batch_size=6, epochs=4, optimizer="adamw", patience=None,
    augmentation=Augmentation(pad_wrap=0, geometry=0, flip=0, colour=0, blur=0),
)  # fmt: skip
ROWS, KEPT = digit_rows(4, side=32)  # 16 images


class Photos:
    """An image source over bytes in memory."""

    def image_bytes(self, image_id: str) -> bytes:
        return KEPT[image_id]


def images(recipe: Recipe) -> ImageSet:
    targets = one_hot([row.label for row in ROWS], sorted({row.label for row in ROWS}))
    ids = [row.image_id for row in ROWS]
    return ImageSet(Photos(), ids, targets, image_size=32, augmentation=recipe.augmentation, seed=0)


def learner(recipe: Recipe) -> Learner:
    return Learner(recipe, initial_model(recipe, 4, seed=3), "cpu", (0,))


WAYS: dict[str, dict[str, object]] = {
    "whole batches": {},
    "micro-batches, one image left over": {"batch_size": 5, "micro_batch": 5},
    "dropout, average, ranger": {"dropout": 0.3, "ema_decay": 0.9, "optimizer": "ranger", "micro_batch": 3},
    "a frozen backbone first": {"head_epochs": 1},
    "16 bits": {"precision": "bfloat16"},
}


def trained(recipe: Recipe) -> Learner:
    one = learner(recipe)
    for epoch in range(2):
        for _ in one.epoch(images(recipe), epoch):
            pass
    return one


@pytest.mark.parametrize("way", WAYS)
def test_the_result_is_the_same_to_the_bit(way: str) -> None:
    plain = RECIPE.model_copy(update=WAYS[way])
    kept, again = (trained(plain.model_copy(update={"checkpointing": on})) for on in (False, True))
    for name, value in kept.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert kept.tally == again.tally
    assert all(norm.momentum and norm.num_batches_tracked is not None for norm in again._batch_norms)


def test_blocks_do_run_again_and_only_while_training() -> None:
    recipe = RECIPE.model_copy(update={"checkpointing": True})
    one, runs = learner(recipe), list[object]()
    block = one.model.get_submodule("blocks.0.0")
    block.register_forward_pre_hook(lambda module, given: runs.append(module.training))
    next(one.epoch(images(recipe), 0))
    assert len(runs) == 2
    with torch.no_grad():
        one.model.eval()(torch.zeros(1, 3, 32, 32))
    assert len(runs) == 3


def test_it_takes_less_memory() -> None:
    recipe = RECIPE.model_copy(update={"image_size": 192, "model": "efficientnet_b0"})
    spared = recipe.model_copy(update={"checkpointing": True})
    assert training_memory(spared, torch.float32).image_mb < 0.5 * training_memory(recipe, torch.float32).image_mb


def test_a_network_that_does_not_know_how_is_refused_before_any_fold() -> None:
    unable = next(
        name for name in ("dla34", "inception_v4", "nasnetalarge") if not can_recompute(timm.create_model(name))
    )
    with pytest.raises(UserError, match=unable) as caught:
        check_recipe(RECIPE.model_copy(update={"model": unable, "checkpointing": True}))
    assert caught.value.where == "recipe.checkpointing"
    check_recipe(RECIPE.model_copy(update={"checkpointing": True}))
    assert not getattr(initial_model(RECIPE, 4, 0), "grad_checkpointing", False)


def test_it_is_no_other_work() -> None:
    tasks = [
        TrainTask("teacher/fold0", "snapshot", "0" * 64, ("a", "b"), (0,), made.model_dump(mode="json"))
        for made in (RECIPE, RECIPE.model_copy(update={"checkpointing": True}))
    ]
    assert spec_hash(tasks[0]) == spec_hash(tasks[1])
