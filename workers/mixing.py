"""Mixup and CutMix of a batch whose targets are soft already. Seeded by the caller, so a step repeats."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from workers.recipe import Recipe


def mixed(images: Tensor, targets: Tensor, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019) of a float batch, one or the other where both are on.

    Every image is paired with another of a random order of the same batch; targets mix by the share of pixels.
    """
    if (recipe.mixup == 0 and recipe.cutmix == 0) or len(images) < 2:
        return images, targets
    random = np.random.default_rng(seed)
    cut = recipe.cutmix > 0 and (recipe.mixup == 0 or random.random() < 0.5)
    alpha = recipe.cutmix if cut else recipe.mixup
    share = float(random.beta(alpha, alpha))
    other = torch.from_numpy(random.permutation(len(images))).to(images.device)
    if not cut:
        return torch.lerp(images[other], images, share), torch.lerp(targets[other], targets, share)
    height, width = images.shape[2:]
    box_height, box_width = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
    top = int(random.integers(height - box_height + 1))
    left = int(random.integers(width - box_width + 1))
    images = images.clone()
    box = (slice(None), slice(None), slice(top, top + box_height), slice(left, left + box_width))
    images[box] = images[other][box]
    share = 1 - box_height * box_width / (height * width)
    return images, torch.lerp(targets[other], targets, share)
