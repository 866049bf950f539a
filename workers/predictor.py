"""The predictor: any photos in, the ensemble's logits out. Mean of the members' logits, softmax comes after.

Each member sees a photo exactly as it did in validation: shrunk and kept as the run kept its photos, then longest side
to its image size, centred on black.
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
from workers.photo import encode_jpeg, keep, shrink
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
    """`classes` in the order of every logit column, and the members whose logits are averaged.

    `longest_side` is what the run shrank its photos to; None: they are taken as they are.
    """

    def __init__(
        self, classes: Sequence[str], members: Sequence[Member], device: str, longest_side: int | None = None
    ) -> None:
        self.classes = tuple(classes)
        self.members = tuple(members)
        self.device = torch.device(device)
        self.longest_side = longest_side
        self.sizes = tuple(sorted({member.image_size for member in members}))
        self._transforms = {size: EvaluationTransform(size) for size in self.sizes}

    def pixels(self, data: bytes) -> dict[int, Pixels]:
        """A photo's bytes as uint8 [size, size, 3] for each image size. Raises what `decode` raises."""
        kept = data if self.longest_side is None else keep(data, self.longest_side)[0]
        return {size: transform(decode(kept, size)) for size, transform in self._transforms.items()}

    def logits(self, images: Sequence[Pixels], flip_tta: bool = False) -> NDArray[np.float32]:
        """Mean logits, float32 [n, classes], of decoded photos: RGB uint8 [h, w, 3] of any size.

        For the run's own numbers to the last digit give the file's bytes to `pixels`: large JPEGs are decoded smaller.
        """
        return self.stacked_logits([self._of_decoded(image) for image in images], flip_tta)

    def _of_decoded(self, image: Pixels) -> dict[int, Pixels]:
        if self.longest_side is None or max(image.shape[:2]) <= self.longest_side:
            return {size: transform(image) for size, transform in self._transforms.items()}
        kept = encode_jpeg(shrink(image, self.longest_side))
        return {size: transform(decode(kept, size)) for size, transform in self._transforms.items()}

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
