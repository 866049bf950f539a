from __future__ import annotations

import itertools

import torch
from torch import nn

from workers.cost import measured_cost


def test_time_is_the_median_pass_and_memory_the_most_that_lives_at_once() -> None:
    # 1 x 3 x 10 x 10 floats in, 1 x 8 x 10 x 10 after the first layer, as many after the second
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False), nn.Flatten())
    weights, image, map_ = 4 * (24 + 64), 4 * 300, 4 * 800
    cost = measured_cost(model, 10, torch.device("cpu"), itertools.count(0.0, 0.5).__next__)
    assert cost.ms_per_image == 500.0
    assert cost.memory_mb == (weights + image + 2 * map_) / 1e6
    assert not model.training


def test_memory_that_is_freed_on_the_way_is_not_counted_twice() -> None:
    deep = nn.Sequential(*[nn.Conv2d(3, 3, 1, bias=False) for _ in range(20)])
    cost = measured_cost(deep, 50, torch.device("cpu"), itertools.count(0.0, 1.0).__next__)
    map_ = 4 * 3 * 2500
    assert 3 * map_ <= cost.memory_mb * 1e6 <= 4 * map_
