"""Pretrained weights: from timm (cached or fetched), from a local file, or from an installed Python package.

A file's tensors are matched by name; where its names are another library's, in order: then every tensor's shape and
the last part of its name must agree, one to one. Only the head may differ, and is then left as it was drawn.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import huggingface_hub
import safetensors.torch
import timm
import torch
from huggingface_hub import constants as hub
from safetensors import SafetensorError
from torch import Tensor, nn

from shared_store.errors import UserError
from workers.weights_file import weights_file

_REACH_SECONDS = 5.0


def heads(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that timm calls the network's classifier."""
    classifier = _config(model)["classifier"]
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters of the network's classifier."""
    starts = tuple(f"{head}." for head in heads(model))
    names = tuple(name for name, _ in model.named_parameters() if name.startswith(starts))
    assert names, f"no parameter lies under {starts}, which timm names as the classifier"
    return names


def draw_head(model: nn.Module) -> None:
    """Draw the classifier anew, uniform within 1 / sqrt(features), as PyTorch's layers do.

    timm draws an EfficientNet's within 1 / sqrt(classes): with few classes the first loss is then several times
    log(classes), and a short training spends its epochs on taking that back.
    """
    for head in heads(model):
        for module in model.get_submodule(head).modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.reset_parameters()


def has_own_head(model: nn.Module, classes: int) -> bool:
    """Whether timm's pretrained weights of this network come with a head for as many classes."""
    return bool(_config(model)["num_classes"] == classes)


def _config(model: nn.Module) -> dict[str, Any]:
    """What timm says about the network and the weights it was made for."""
    config: Any = model.pretrained_cfg
    return dict(config)


def has_timm_weights(name: str) -> bool:
    """Whether timm knows pretrained weights for this model and, where the name has one, its tag."""
    return any(known == name or known.startswith(f"{name}.") for known in pretrained_names())


@cache
def pretrained_names() -> tuple[str, ...]:
    """Every `architecture.tag` that timm has weights for; sorting them takes timm a sixth of a second."""
    return tuple(timm.list_pretrained())


def timm_weights(name: str, cache_folder: Path | None = None) -> Path | None:
    """The file with timm's weights on this machine, or None when they can be fetched. UserError when neither.

    Decided within seconds: left to itself, the hub's client retries an unreachable network for most of a minute, even
    for weights that it has. `cache_folder`: of the hub's client; None is its own.
    """
    config = timm.get_pretrained_cfg(name)
    assert config is not None, f"{name} was checked before"
    if not config.hf_hub_id:
        return None
    for file in ("model.safetensors", "pytorch_model.bin"):
        cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, file, cache_dir=cache_folder)
        if isinstance(cached, str):
            return Path(cached)
    why = "HF_HUB_OFFLINE forbids to fetch them" if hub.HF_HUB_OFFLINE else unreachable(hub.ENDPOINT)
    if why is not None:
        raise not_to_be_had(name, f"they are not on this machine, and {why}")
    return None


def unreachable(url: str) -> str | None:
    """Why `url` cannot be reached, or None when anybody answers there."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None  # what they say about one page is no matter
    except OSError as error:
        return f"{url} cannot be reached ({error})"


def not_to_be_had(name: str, why: str) -> UserError:
    return UserError(
        f"the pretrained weights of {name} cannot be had: {why}",
        where="recipe.weights: timm",
        mend="connect this machine once, or set recipe.weights to a local file, a `package:` or `none`",
    )


def load_pretrained(model: nn.Module, source: str) -> None:
    """Load `source` (a file, or `package:NAME`) into `model`, in place, but for a head of other shape.

    UserError names the tensors when they do not fit.
    """
    path = weights_file(source)
    found, expected, head = _read(path, source), model.state_dict(), set(head_names(model))
    same_names = (set(expected) - head) & set(found)
    matched = _by_name(found, expected, head) if same_names else _in_order(found, expected, head)
    if isinstance(matched, str):
        raise UserError(
            f"the pretrained weights do not fit {_config(model)['architecture']}: {matched}",
            where=str(path),
            mend="set recipe.model to the network that these weights belong to",
        )
    model.load_state_dict(matched, strict=False)


Tensors = Mapping[str, Tensor]


def _by_name(found: Tensors, expected: Tensors, head: Collection[str]) -> dict[str, Tensor] | str:
    """The expected tensors out of `found`, a head only if it fits; or what is wrong with them."""
    missing = [name for name in expected if name not in found and name not in head]
    if missing:
        return f"{len(missing)} tensors are missing, such as {', '.join(missing[:3])}"
    fits = {name: found[name] for name, value in expected.items() if name in found and found[name].shape == value.shape}
    misshapen = [name for name in expected if name not in fits and name not in head]
    if misshapen:
        name = misshapen[0]
        return (
            f"{len(misshapen)} tensors differ in shape, such as {name}: "
            f"{tuple(found[name].shape)} in the file, {tuple(expected[name].shape)} in the network"
        )
    return fits


def _in_order(found: Tensors, expected: Tensors, head: Collection[str]) -> dict[str, Tensor] | str:
    """Tensors of other names, matched one to one in order, a head only if it fits; or what is wrong with them."""
    if len(found) != len(expected):
        return f"{len(found)} tensors in the file, {len(expected)} in the network"
    for mine, theirs in zip(expected, found, strict=True):
        same_shape = mine in head or expected[mine].shape == found[theirs].shape
        if not same_shape or mine.split(".")[-1] != theirs.split(".")[-1]:
            return (
                f"{theirs} {tuple(found[theirs].shape)} stands where {mine} {tuple(expected[mine].shape)} belongs, "
                "and no name is the same"
            )
    pairs = zip(expected.items(), found.values(), strict=True)
    return {name: value for (name, wanted), value in pairs if value.shape == wanted.shape}


def _read(path: Path, source: str) -> dict[str, Tensor]:
    """All tensors of a safetensors or .pth file (never unpickled beyond tensors)."""
    if not path.is_file():
        mend = "give recipe.weights a .safetensors or .pth file that exists on every machine, `timm` or `none`"
        raise UserError(f"no file with pretrained weights: {source}", where=str(path), mend=mend)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise _unreadable(path, "it holds more than tensors, or is no .pth file") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _unreadable(path, str(error)) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise _unreadable(path, "it is not a table of tensors by name")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _unreadable(path: Path, why: str) -> UserError:
    mend = "give recipe.weights a .safetensors file, or a .pth file with a state_dict"
    return UserError(f"the pretrained weights cannot be read: {why}", where=str(path), mend=mend)
