"""The optimizer, the learning rate as a function of time, and gradient clipping.

`ranger` is the competition's: RAdam (betas .95 and .999, eps 1e-5) under Lookahead (6 steps, half way), on centralized
gradients (Yong et al. 2020, arXiv 2004.01461). Everything an optimizer remembers is in its `state_dict`, the slow
weights of Lookahead too. Weight decay leaves norms and biases alone.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable
from typing import Any

import timm.optim
import torch
from timm.utils.agc import adaptive_clip_grad
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from shared_store.errors import UserError
from workers.recipe import Recipe

RANGER = "ranger"
_RANGER_OPTIONS: dict[str, Any] = {"betas": (0.95, 0.999), "eps": 1e-5}


def create_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all weights of `model`, fused or multi-tensor where it can be.

    UserError with the nearest names when timm has no such optimizer, or when this machine cannot run it.
    """
    name = "lookahead_radam" if recipe.optimizer == RANGER else recipe.optimizer
    options = dict(_RANGER_OPTIONS) if recipe.optimizer == RANGER else {}
    options |= _fast(_optimizer_class(name))
    optimizer: torch.optim.Optimizer = timm.optim.create_optimizer_v2(
        model, opt=name, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, **options
    )
    return optimizer


def _optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    base = name.removeprefix("lookahead_")
    names = timm.optim.list_optimizers()
    if base not in names:
        near = difflib.get_close_matches(base, [*names, RANGER], 3, 0.5)
        mend = f"did you mean {', '.join(near)}?" if near else f"one of {RANGER}, {', '.join(names)}"
        raise UserError(f"timm has no optimizer {name!r}", where="recipe.optimizer", mend=mend)
    if timm.optim.get_optimizer_info(base).second_order:
        mend = "choose a first-order optimizer, such as adamw or ranger"
        raise UserError(f"{name} needs second derivatives, which are not taken", where="recipe.optimizer", mend=mend)
    try:
        found: type[torch.optim.Optimizer] = timm.optim.get_optimizer_class(base, bind_defaults=False)
    except (AssertionError, RuntimeError, ImportError) as error:  # timm asserts a card for what needs one
        mend = "choose an optimizer that needs no extra package, such as adamw or ranger"
        raise UserError(f"{name} cannot run here: {error}", where="recipe.optimizer", mend=mend) from error
    return found


def _fast(kind: type[torch.optim.Optimizer]) -> dict[str, bool]:
    """The fastest way this class can step: one fused kernel, else one call for many tensors."""
    known = inspect.signature(kind.__init__).parameters
    return {"fused": True} if "fused" in known else {"foreach": True} if "foreach" in known else {}


def learning_rate(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The learning rate of step `step` of `steps` in `epoch`, all counted from 0.

    - `cosine` falls to 0 over the epochs after the warm-up, step by step.
    - `restarts` (SGDR, Loshchilov & Hutter 2017) falls epoch by epoch, as the competition recipe did: within a cycle
      of n epochs, epoch i runs at (1 + cos(pi i / n)) / 2, and every cycle is `restart_factor` times as long.
    - The warm-up rises step by step from nearly 0 and multiplies whatever the schedule gives.
    """
    now = epoch + step / steps
    warm = min(1.0, (now + 1 / steps) / recipe.warmup_epochs) if recipe.warmup_epochs > 0 else 1.0
    if recipe.schedule == "cosine":
        left = recipe.epochs - recipe.warmup_epochs
        share = max(0.0, now - recipe.warmup_epochs) / left if left > 0 else 0.0
    elif recipe.schedule == "restarts":
        share = _share_of_cycle(epoch, recipe.restart_epochs, recipe.restart_factor)
    else:
        share = 0.0
    return recipe.learning_rate * warm * (1 + math.cos(math.pi * share)) / 2


def _share_of_cycle(epoch: int, first: int, factor: int) -> float:
    length = first
    while epoch >= length:
        epoch -= length
        length *= factor
    return epoch / length


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def clip_gradients(parameters: Iterable[nn.Parameter], recipe: Recipe) -> None:
    """Clip the gradients in place: values to +-limit, their common norm to limit, or (adaptive) each unit's norm to
    limit x its weights' norm (Brock et al. 2021, arXiv 2102.06171)."""
    if recipe.clip == "value":
        clip_grad_value_(parameters, recipe.clip_limit, foreach=True)
    elif recipe.clip == "norm":
        clip_grad_norm_(parameters, recipe.clip_limit, foreach=True)
    elif recipe.clip == "adaptive":
        adaptive_clip_grad(parameters, recipe.clip_limit)


def centralize_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Subtract from the gradient of every unit (first axis) of a weight with two axes or more its mean, in place."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.ndim > 1:
            parameter.grad.sub_(parameter.grad.mean(dim=tuple(range(1, parameter.ndim)), keepdim=True))
