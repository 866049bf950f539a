"""The model: any timm network with a head for the classes, its preprocessing, its running average, its cost.

The initial weights depend on the recipe and the seed given, never on what drew random numbers before: building runs on
its own random stream and leaves the process's as it was.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from shared_store.errors import UserError
from shared_store.records import canonical_json
from workers import weights
from workers.recipe import Recipe
from workers.weights_file import is_package


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its pixels: (value / 255 - mean) / std per RGB channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any parts that print the same everywhere (numbers, strings, tuples of them)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def check_model(name: str, pretrained: bool = False) -> None:
    """UserError with the nearest names when timm has no such model, no such tag of it, or no weights for it."""
    base, _, tag = name.partition(".")
    known = timm.is_model(base)
    if known and (weights.has_timm_weights(name) or not (tag or pretrained)):
        return
    names = weights.pretrained_names()
    near = [n for n in names if known and n.partition(".")[0] == base]
    near = near or difflib.get_close_matches(name, [*timm.list_models(), *names], 3, 0.5)
    what = f"timm has no pretrained weights called {name!r}" if known else f"timm has no model {name!r}"
    mend = f"did you mean {', '.join(near)}?" if near else "see timm.list_models() for the names"
    raise UserError(what, where="recipe.model", mend=mend)


def empty_model(recipe: Recipe, classes: int) -> nn.Module:
    """The recipe's network with a head for `classes`, in channels_last, for weights that are loaded next."""
    check_model(recipe.model)
    return _created(recipe, classes)


def initial_model(recipe: Recipe, classes: int, seed: int) -> nn.Module:
    """The network to start training from: pretrained as the recipe says, the new head drawn from `seed`.

    UserError when the model is unknown or its weights cannot be had or do not fit.
    """
    from_timm = recipe.weights == "timm"
    check_model(recipe.model, pretrained=from_timm)
    options: dict[str, Any] = {}
    if from_timm:
        file = weights.timm_weights(recipe.model)
        options = {"pretrained": True, "pretrained_cfg_overlay": {} if file is None else {"file": str(file)}}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model = _created(recipe, classes, **options)
        except OSError as error:  # the network, or the disk that the weights go to
            raise weights.not_to_be_had(recipe.model, str(error)) from error
        if not (from_timm and weights.has_own_head(model, classes)):
            weights.draw_head(model)
    if recipe.weights not in ("timm", "none"):
        weights.load_pretrained(model, recipe.weights)
    return model


def _created(recipe: Recipe, classes: int, **options: Any) -> nn.Module:
    options |= {"drop_rate": recipe.dropout} if recipe.dropout > 0 else {}
    model: nn.Module = timm.create_model(recipe.model, num_classes=classes, **options)
    return model.to(memory_format=torch.channels_last)


def preprocessing(recipe: Recipe) -> Preprocessing:
    """Mean and std that the recipe's weights were made with; needs no network and no weights.

    The weights that come as packages were all trained on mean = std = 0.5.
    """
    check_model(recipe.model)
    config = timm.get_pretrained_cfg(recipe.model)
    if config is None or is_package(recipe.weights):
        return Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Preprocessing(tuple(config.mean), tuple(config.std))


def prepare_to_train(model: nn.Module, *, head_only: bool) -> None:
    """Training mode; with `head_only`, every weight but the head's is frozen and BatchNorm keeps its statistics."""
    head = set(weights.head_names(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not head_only or name in head)
    model.train()
    if head_only:
        for module in batch_norms(model):
            module.eval()


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Every module that draws statistics from the batch while it trains."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@contextlib.contextmanager
def running_statistics(batch_norms: Sequence[nn.Module]) -> Iterator[None]:
    """BatchNorm on its running statistics, which stay as they are."""
    before = [module.training for module in batch_norms]
    for module in batch_norms:
        module.eval()
    try:
        yield
    finally:
        for module, training in zip(batch_norms, before, strict=True):
            module.train(training)


class WeightAverage:
    """Exponential moving average of a model's weights and float buffers; integer buffers are copied.

    The decay of update t = 1, 2 ... is min(decay, (1 + t) / (10 + t)), TensorFlow's ExponentialMovingAverage with
    num_updates: short runs are not left with the average's beginning. A function of t alone, so it resumes exactly.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._averaged = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        self._copied = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's weights after its optimizer step number `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = [list(side) for side in zip(*self._averaged, strict=True)]
        torch._foreach_lerp_(mine, theirs, weight=1 - decay)
        for own, other in self._copied:
            own.copy_(other)


def load_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights by name, in place (memory layout stays). ValueError names missing, unknown or misshapen tensors."""
    expected = model.state_dict()
    wrong = sorted(set(expected) ^ set(tensors))
    wrong += [name for name, value in tensors.items() if name in expected and expected[name].shape != value.shape]
    if wrong:
        raise ValueError(f"weights that do not fit the model: {', '.join(wrong[:5])} ({len(wrong)} in all)")
    model.load_state_dict(dict(tensors))


def model_bytes(model: nn.Module, about: Mapping[str, Any]) -> bytes:
    """A model's weights as plain safetensors bytes by timm's names; `about` goes into the header, as JSON.

    The same weights and `about` give the same bytes.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return safetensors.torch.save(tensors, {"foldfleet": canonical_json(dict(about)).decode()})


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, image_size: int) -> int:
    """Multiply-adds of one image's forward pass, counted on shapes alone (no arithmetic is done).

    FlopCounterMode counts two operations a multiply-add. Its forward counts are right; backward ones of depthwise
    convolutions are not, and are not used.
    """
    shapes = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, 3, image_size, image_size, device="meta"))
    return int(counter.get_total_flops()) // 2
