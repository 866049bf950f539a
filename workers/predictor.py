"""The predictor: any photos in, the ensemble's logits out. Mean of the members' logits, softmax comes after.

Each member sees a photo exactly as it did in validation: longest side to its image size, centred on black.
Results do not depend on the batch size but for the order in which float32 sums are taken: logits agree within
`BATCH_TOLERANCE` (of the largest logit where that is above 1), on one machine and device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.decode import decode
from workers.framing import EvaluationTransform
from workers.images import Normaliser
from workers.repeatable import whole_float32

Pixels = NDArray[np.uint8]
BATCH_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Member:
    """One network of the ensemble, in evaluation mode on the predictor's device."""

    name: str
    image_size: int
    model: nn.Module
    normalise: Normaliser


class Predictor:
    """`classes` in the order of every logit column, and the members whose logits are averaged."""

    def __init__(self, classes: Sequence[str], members: Sequence[Member], device: str) -> None:
        self.classes = tuple(classes)
        self.members = tuple(members)
        self.device = torch.device(device)
        self.sizes = tuple(sorted({member.image_size for member in members}))
        self._transforms = {size: EvaluationTransform(size) for size in self.sizes}

    def pixels(self, data: bytes) -> dict[int, Pixels]:
        """A photo's bytes as uint8 [size, size, 3] for each image size. Raises what `decode` raises."""
        return {size: transform(decode(data, size)) for size, transform in self._transforms.items()}

    def logits(self, images: Sequence[Pixels], flip_tta: bool = False) -> NDArray[np.float32]:
        """Mean logits, float32 [n, classes], of decoded photos: RGB uint8 [h, w, 3] of any size."""
        return self.stacked_logits(
            [{size: transform(image) for size, transform in self._transforms.items()} for image in images], flip_tta
        )

    def stacked_logits(self, photos: Sequence[Mapping[int, Pixels]], flip_tta: bool = False) -> NDArray[np.float32]:
        """The same of photos that `pixels` prepared."""
        if not photos:
            return np.empty((0, len(self.classes)), np.float32)
        stacks = {size: torch.from_numpy(np.stack([photo[size] for photo in photos])) for size in self.sizes}
        return self.batch_logits({size: stack.permute(0, 3, 1, 2) for size, stack in stacks.items()}, flip_tta)

    def batch_logits(self, batches: Mapping[int, Tensor], flip_tta: bool = False) -> NDArray[np.float32]:
        """The same of uint8 batches [n, 3, size, size] by image size; `flip_tta` adds each photo's mirror image."""
        with torch.inference_mode(), whole_float32():
            sent = {size: batch.to(self.device) for size, batch in batches.items()}
            total = self._sum(sent)
            if flip_tta:
                total = (total + self._sum({size: batch.flip(3) for size, batch in sent.items()})) / 2
            mean: NDArray[np.float32] = (total / len(self.members)).cpu().numpy()
        if not np.isfinite(mean).all():
            raise FloatingPointError("a member's weights gave logits that are not finite")
        return mean

    def _sum(self, batches: Mapping[int, Tensor]) -> Tensor:
        logits = [member.model(member.normalise(batches[member.image_size])) for member in self.members]
        return torch.stack(logits).sum(dim=0)
