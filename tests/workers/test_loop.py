from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from support import digit_rows
from torch import nn
from torch.nn import functional

from workers.images import ImageSet, one_hot
from workers.loop import Learner, NanLossError, compute_dtype, logits_of, normaliser
from workers.mixing import mixed
from workers.model import initial_model
from workers.recipe import Augmentation, Recipe
from workers.state_file import pack, unpack

PLAIN = Augmentation(pad_wrap=0, geometry=0, flip=0, colour=0, blur=0)
RECIPE = Recipe(
    model="test_efficientnet",
    weights="none",
    image_size=32,
    batch_size=6,
    epochs=4,
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="constant",
    clip="none",
    patience=None,
    augmentation=PLAIN,
)


class Photos:
    """An image source over bytes in memory."""

    def __init__(self, kept: Mapping[str, bytes]) -> None:
        self.kept = kept

    def image_bytes(self, image_id: str) -> bytes:
        return self.kept[image_id]


ROWS, KEPT = digit_rows(4, side=32)
IDS = tuple(row.image_id for row in ROWS)  # 16 images: batches of 6, 6 and 4
TARGETS = one_hot([row.label for row in ROWS], sorted({row.label for row in ROWS}))


def recipe(**changes: object) -> Recipe:
    return RECIPE.model_copy(update=changes)


def images(made: Recipe, count: int = 16) -> ImageSet:
    options: dict[str, Any] = {"augmentation": made.augmentation, "seed": made.seed, "image_size": made.image_size}
    return ImageSet(Photos(KEPT), IDS[:count], TARGETS[:count].copy(), **options)


def learner(made: Recipe, model: nn.Module | None = None) -> Learner:
    return Learner(made, model or initial_model(made, 4, seed=3), "cpu", (0,))


def run_epoch(made: Recipe, model: nn.Module | None = None, count: int = 16) -> Learner:
    one = learner(made, model)
    assert list(one.epoch(images(made, count), 0)) == list(range(1, images(made, count).steps(made.batch_size) + 1))
    return one


def distance(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def test_a_plain_epoch_is_the_bare_pytorch_loop_to_the_bit() -> None:
    ours = run_epoch(RECIPE)
    model = initial_model(RECIPE, 4, seed=3).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    normalise = normaliser(RECIPE, torch.device("cpu"))
    losses = 0.0
    for batch in images(RECIPE).batches(0, 6):
        loss = functional.cross_entropy(model(normalise(batch.images)), batch.targets, reduction="sum") / len(
            batch.images
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += loss.item() * len(batch.images)
    assert distance(ours.model, model) == 0
    assert ours.tally.mean_loss == pytest.approx(losses / 16, rel=1e-12)
    assert ours.tally.images == 16


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_add_up_to_the_gradient_of_the_batch(micro: int) -> None:
    made = recipe(model="test_vit", optimizer="sgd", learning_rate=0.1, image_size=160)  # a network without BatchNorm
    whole = run_epoch(made, count=10)  # the last batch is smaller: 4 images
    parts = run_epoch(made.model_copy(update={"micro_batch": micro}), count=10)
    start = initial_model(made, 4, seed=3)
    assert distance(start, whole.model) > 1e-3
    assert distance(whole.model, parts.model) < 1e-5
    assert whole.tally.mean_loss == pytest.approx(parts.tally.mean_loss, rel=1e-4)


def test_an_image_left_over_from_cutting_runs_on_running_statistics() -> None:
    # 9 images in batches of 6 and 3, cut into twos: the last part is one image, whose final map is one pixel
    made = recipe(micro_batch=2, image_size=32)
    one = run_epoch(made, count=9)
    seen = {int(value) for name, value in one.model.state_dict().items() if name.endswith("num_batches_tracked")}
    assert seen == {4}, "three parts of the first batch and one of the second moved the statistics, the fifth did not"
    assert all(module.training for module in one.model.modules())


def test_smoothing_and_soft_targets_are_those_of_cross_entropy() -> None:
    made = recipe(label_smoothing=0.2, batch_size=16)
    one = run_epoch(made)
    model = initial_model(made, 4, seed=3).train()
    (batch,) = images(made).batches(0, 16)
    logits = model(normaliser(made, torch.device("cpu"))(batch.images))
    smooth = batch.targets * 0.8 + 0.05
    expected = -(smooth * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert one.tally.mean_loss == pytest.approx(expected.item(), rel=1e-5)


def test_a_step_does_not_depend_on_what_drew_random_numbers_before() -> None:
    made = recipe(dropout=0.5, mixup=0.4)
    torch.manual_seed(1)
    first = run_epoch(made)
    torch.manual_seed(2)
    torch.rand(100)
    assert distance(first.model, run_epoch(made).model) == 0
    other = Learner(made, initial_model(made, 4, seed=3), "cpu", (1,))
    list(other.epoch(images(made), 0))
    assert distance(first.model, other.model) > 0, "other folds draw other numbers"


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_state_taken_in_mid_epoch_goes_on_to_the_bit_in_any_precision(precision: str) -> None:
    made = recipe(precision=precision, ema_decay=0.9, optimizer="ranger", cutmix=1.0, dropout=0.1, clip="norm")
    whole = run_epoch(made)
    first = learner(made)
    steps = first.epoch(images(made), 0)
    next(steps)
    state, _ = unpack(pack(first.state(), {}))
    second = learner(made, initial_model(made, 4, seed=99))
    second.load(state)
    assert list(second.epoch(images(made), 0, start=1)) == [2, 3]
    assert pack(second.state(), {}) == pack(whole.state(), {})
    assert compute_dtype(made, torch.device("cpu")) == getattr(torch, precision)


@pytest.mark.parametrize(("here", "there"), [("float32", "float16"), ("float16", "float32"), ("bfloat16", "float16")])
def test_a_fold_moves_between_cards_of_other_precision(here: str, there: str) -> None:
    """`precision: auto` is 32-bit on a GTX 10 card and 16-bit on an RTX 20: a fold begun on one goes on there."""
    begun, moved = run_epoch(recipe(precision=here)), learner(recipe(precision=there))
    moved.load(begun.state())
    assert distance(begun.model, moved.model) == 0
    assert list(moved.epoch(images(moved.recipe), 1)) == [1, 2, 3]


def test_a_loss_that_is_not_finite_names_its_step_and_images() -> None:
    one = learner(recipe(model="test_vit", image_size=160))
    data = images(one.recipe)
    batches = list(data.batches(0, 6))
    bad = batches[1].image_ids
    data.targets[data.image_ids.index(bad[2])] = float("nan")
    done = []
    with pytest.raises(NanLossError, match="step 1") as stopped:
        done.extend(one.epoch(data, 0))
    assert stopped.value.image_ids == bad
    assert one.tally.images == 6, "what was fine before it is counted"


def test_weights_that_are_not_finite_are_never_fit_to_keep() -> None:
    one = run_epoch(RECIPE)
    with torch.no_grad():
        next(one.model.parameters())[0] = float("inf")
    with pytest.raises(NanLossError):
        one.check()


def test_the_head_phase_leaves_the_backbone_as_it_was() -> None:
    made = recipe(head_epochs=1, epochs=2)
    one, start = run_epoch(made), initial_model(made, 4, seed=3)
    changed = {n for n, v in one.model.state_dict().items() if not torch.equal(v, start.state_dict()[n])}
    assert changed == {"classifier.weight", "classifier.bias"}
    list(one.epoch(images(made), 1))
    assert not torch.equal(one.model.state_dict()["conv_stem.weight"], start.state_dict()["conv_stem.weight"])


def test_logits_come_in_the_order_asked_for_and_leave_no_trace() -> None:
    model = initial_model(RECIPE, 4, seed=3)
    before = copy.deepcopy(model.state_dict())
    forward = logits_of(model.train(), Photos(KEPT), IDS, recipe=RECIPE, device="cpu")
    backward = logits_of(model.train(), Photos(KEPT), IDS[::-1], recipe=RECIPE, device="cpu")
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)
    assert forward.shape == (16, 4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(AssertionError, match="are no images"):
        logits_of(model, Photos(KEPT), (), recipe=RECIPE, device="cpu")


def batch(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose every pixel is their number, and one-hot targets."""
    pixels = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 3, 10, 10)
    return pixels.contiguous(), torch.eye(count)


def test_mixup_mixes_targets_by_the_share_of_the_pixels_values() -> None:
    pixels, targets = batch()
    for seed in range(5):
        some, soft = mixed(pixels, targets, recipe(mixup=0.8), seed)
        torch.testing.assert_close(some[:, 0, 0, 0], soft @ torch.arange(8.0))
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(8))
        assert soft.count_nonzero(dim=1).max() <= 2


def test_cutmix_mixes_targets_by_the_share_of_the_pixels() -> None:
    pixels, targets = batch()
    for seed in range(5):
        some, soft = mixed(pixels, targets, recipe(cutmix=1.0), seed)
        for place in range(8):
            own = (some[place, 0] == place).double().mean().item()
            assert soft[place, place].item() == pytest.approx(own, abs=1e-6)
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(8))


def test_mixing_repeats_by_its_seed_takes_turns_and_leaves_its_input_alone() -> None:
    pixels, targets = batch()
    both = recipe(mixup=0.8, cutmix=1.0)
    one, again = mixed(pixels, targets, both, 5), mixed(pixels, targets, both, 5)
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    whole = {bool((mixed(pixels, targets, both, seed)[0].flatten(1).std(dim=1) == 0).all()) for seed in range(20)}
    assert whole == {True, False}, "some batches are mixed up, some are cut"
    assert torch.equal(pixels, batch()[0])
    assert torch.equal(mixed(pixels[:1], targets[:1], both, 5)[0], pixels[:1])
