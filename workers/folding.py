"""Batch normalisation folded into the convolution before it: the same function, in fewer passes over the pixels.

A normalisation in evaluation mode is a scale and a shift per channel, and so is part of the weights of a convolution
whose only user it is. The graph of torch.fx says who uses what; a network that cannot be traced stays as it is.
Markus Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 3.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

# What code that depends on its pixels or shapes is known to raise when it is traced.
_UNTRACEABLE = (fx.proxy.TraceError, TypeError, AttributeError, RuntimeError, ValueError, KeyError)


class _Tracer(fx.Tracer):
    """Keeps convolutions and normalisations whole, timm's own kinds too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.Conv2d, _BatchNorm)) or super().is_leaf_module(m, module_qualified_name)


def folded(model: nn.Module) -> nn.Module:
    """`model` (in evaluation mode, changed in place) with every foldable normalisation folded; or `model` itself.

    Logits agree but for float32 rounding.
    """
    assert not model.training, "a model in training mode normalises by its batch"
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return model
    try:
        graph = _Tracer().trace(model)
    except _UNTRACEABLE:
        return model
    modules: dict[str, Any] = dict(model.named_modules(remove_duplicate=False))
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    for node in list(graph.nodes):
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not (isinstance(source, fx.Node) and source.op == "call_module" and len(source.users) == 1):
            continue
        before, norm = str(source.target), str(node.target)
        if calls.count(before) > 1 or calls.count(norm) > 1:  # shared weights
            continue
        if isinstance(modules[before], nn.Conv2d) and isinstance(modules[norm], _BatchNorm):
            _fold(modules[before], modules[norm])
            model.set_submodule(norm, _after(modules[norm]))
    return model


def _fold(convolution: nn.Conv2d, norm: _BatchNorm) -> None:
    """Put the scale and the shift into the convolution; worked out in float64."""
    assert norm.running_mean is not None and norm.running_var is not None, "a normalisation without statistics"
    shape = (-1, *[1] * (convolution.weight.dim() - 1))
    scale = 1 / torch.sqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    kept = convolution.weight
    convolution.weight = _fixed(kept.double() * scale.view(shape), kept)
    convolution.bias = _fixed(shift, kept)


def _fixed(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().to(like.dtype), requires_grad=False)


def _after(norm: _BatchNorm) -> nn.Module:
    """What timm's BatchNormAct2d does besides: its activation."""
    return nn.Sequential(*(module for name in ("drop", "act") if (module := getattr(norm, name, None)) is not None))
