from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from shared_store.errors import UserError
from workers.optimize import (
    centralize_gradients,
    clip_gradients,
    create_optimizer,
    learning_rate,
    set_learning_rate,
)
from workers.recipe import Recipe
from workers.state_file import pack, unpack

RECIPE = Recipe(model="test_efficientnet", weights="none", epochs=35)
SAMPLED = ["ranger", "adamw", "sgd", "lookahead_nadamw", "lamb", "lion", "adafactor", "madgrad", "muon"]


def recipe(**changes: object) -> Recipe:
    return RECIPE.model_copy(update=changes)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4)]
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        model(images).square().mean().backward()
        torch.manual_seed(step)
        optimizer.step()
        optimizer.zero_grad()


def values(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict().values())


@pytest.mark.parametrize("name", SAMPLED)
def test_an_optimizer_restored_from_bytes_goes_on_to_the_bit(name: str) -> None:
    made = recipe(optimizer=name, learning_rate=1e-2, weight_decay=1e-3)
    model = network()
    optimizer = create_optimizer(model, made)
    train(model, optimizer, range(8))  # not a multiple of Lookahead's six
    state, _ = unpack(pack({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, {}))
    again = network(seed=1)
    restored = create_optimizer(again, made)
    again.load_state_dict(state["model"])
    restored.load_state_dict(state["optimizer"])
    train(model, optimizer, range(8, 16))
    train(again, restored, range(8, 16))
    assert all(torch.equal(a, b) for a, b in zip(values(model), values(again), strict=True))


def test_ranger_is_lookahead_over_radam_and_takes_the_slow_weights_every_sixth_step() -> None:
    model = network()
    optimizer = create_optimizer(model, recipe(optimizer="ranger"))
    train(model, optimizer, range(7))
    groups = optimizer.state_dict()["param_groups"]
    assert groups[0]["betas"] == (0.95, 0.999)
    assert (groups[0]["lookahead_k"], groups[0]["lookahead_alpha"], groups[0]["lookahead_step"]) == (6, 0.5, 7)
    assert all("lookahead_slow_buff" in state for state in optimizer.state_dict()["state"].values())


def test_optimizers_are_fused_where_they_can_be() -> None:
    assert create_optimizer(network(), recipe(optimizer="adamw")).param_groups[0]["fused"]
    assert create_optimizer(network(), recipe(optimizer="lamb")).param_groups[0]["foreach"]


def test_weight_decay_leaves_norms_and_biases_alone() -> None:
    model = network()
    optimizer = create_optimizer(model, recipe(optimizer="adamw", weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0), name


def test_unknown_and_impossible_optimizers_are_refused_with_a_mend() -> None:
    for name, mend in (("adamm", "adam"), ("rangr", "ranger"), ("adahessian", "first-order"), ("fusedadam", "adamw")):
        with pytest.raises(UserError) as error:
            create_optimizer(network(), recipe(optimizer=name))
        assert error.value.where == "recipe.optimizer"
        assert mend in error.value.mend


def test_restarts_are_those_of_pytorchs_warm_restarts_stepped_per_epoch() -> None:
    made = recipe(schedule="restarts", restart_epochs=10, restart_factor=2, learning_rate=2e-4)
    optimizer = torch.optim.SGD(network().parameters(), lr=2e-4)
    peer = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
    for epoch in range(75):
        assert learning_rate(made, epoch, 3, 7) == pytest.approx(peer.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        peer.step()


def test_cosine_falls_from_the_warm_up_to_nothing_step_by_step() -> None:
    made = recipe(schedule="cosine", epochs=4, warmup_epochs=1.0, learning_rate=1.0)
    rates = [learning_rate(made, step // 5, step % 5, 5) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == pytest.approx([(1 + math.cos(math.pi * i / 15)) / 2 for i in range(15)])
    assert learning_rate(recipe(schedule="constant", learning_rate=0.5), 30, 1, 2) == 0.5


def test_the_rate_is_set_in_every_group() -> None:
    optimizer = create_optimizer(network(), recipe(optimizer="adamw", weight_decay=0.1))
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def gradient(**changes: object) -> Tensor:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.tensor([[3.0, -4.0], [0.5, 0.0]])
    clip_gradients([weight], recipe(**changes))
    return weight.grad


def test_clipping_by_value_norm_and_unit() -> None:
    raw = torch.tensor([[3.0, -4.0], [0.5, 0.0]])
    assert torch.equal(gradient(clip="none"), raw)
    assert torch.equal(gradient(clip="value", clip_limit=1.0), torch.tensor([[1.0, -1.0], [0.5, 0.0]]))
    torch.testing.assert_close(gradient(clip="norm", clip_limit=1.0), raw / raw.norm(), atol=1e-6, rtol=1e-5)
    # A unit's gradient may be at most limit x its weights' norm, which is sqrt(2) here.
    expected = torch.stack([raw[0] * (0.5 * math.sqrt(2) / 5), raw[1]])
    torch.testing.assert_close(gradient(clip="adaptive", clip_limit=0.5), expected)


def test_centralized_gradients_of_weights_have_mean_zero_per_unit() -> None:
    model = network()
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    biases = [p.grad.clone() for p in model.parameters() if p.ndim == 1 and p.grad is not None]
    centralize_gradients(model.parameters())
    for parameter in model.parameters():
        if parameter.ndim > 1:
            assert parameter.grad is not None
            assert parameter.grad.flatten(1).mean(dim=1).abs().max() < 1e-6
    after = [p.grad for p in model.parameters() if p.ndim == 1 and p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(biases, after, strict=True))
