"""Folded normalisation: the same function, and nothing folded that somebody else uses."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from workers.folding import folded


def _norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def _used(model: nn.Module) -> nn.Module:
    """Statistics and scales as after a training."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
    return model.eval()


def _difference(model: nn.Module, other: nn.Module) -> float:
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return float((model(images) - other(images)).abs().max())


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_byobnet", "test_convnext"])
def test_a_folded_network_is_the_same_function(name: str) -> None:
    model = _used(timm.create_model(name, num_classes=4).double())
    before = copy.deepcopy(model)
    after = folded(model)
    assert _norms(after) == 0
    assert _difference(before, after) < 1e-9


class _Block(nn.Module):
    """A convolution and a normalisation in the ways that matter."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.convolution = nn.Conv2d(3, 3, 3, padding=1, bias=way == "bias")
        self.norm = nn.BatchNorm2d(3, affine=way != "plain")

    def forward(self, images: Tensor) -> Tensor:
        middle = self.convolution(images)
        match self.way:
            case "skip":
                return torch.add(self.norm(middle), middle)
            case "twice":
                return torch.add(self.norm(middle), self.convolution(middle))
            case "pixels" if images.mean() > 5:
                return torch.relu(middle)
        return torch.add(self.norm(middle), 0)


@pytest.mark.parametrize(("way", "left"), [("bias", 0), ("no bias", 0), ("skip", 1), ("twice", 1), ("pixels", 1)])
def test_only_a_convolution_whose_sole_user_is_the_norm_is_folded(way: str, left: int) -> None:
    model = _used(_Block(way).double())
    before = copy.deepcopy(model)
    after = folded(model)
    assert _norms(after) == left
    assert _difference(before, after) < 1e-12


def test_a_norm_without_scales_is_folded() -> None:
    model = _Block("plain").double().eval()
    before = copy.deepcopy(model)
    assert _norms(folded(model)) == 0
    assert _difference(before, model) < 1e-12


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(AssertionError, match="training mode"):
        folded(nn.Conv2d(3, 3, 1))
