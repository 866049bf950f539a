"""What a fold takes of a card's memory, as numbers: how many images at once fit a card, and what else would. Pure.

memory.py finds the numbers without a card. None is certain to the last MB, so there are three answers: what surely
does not fit is not tried, what surely fits may be promised, what lies between is tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared_store.errors import UserError

DRIVER_MB = 512
"""What a card loses to the driver and the process (its CUDA context); 741 MB on an H100, less on smaller cards."""
SURE = 1.1
"""So many times the tensors are enough: docs/gpu.md's limited card did with less. Left over are pieces too small."""
NEVER = 0.95
"""With less than so much of what was reckoned nobody need try: the reckoning is not wrong by more."""


@dataclass(frozen=True)
class TrainingMemory:
    """Of one fold on a card, in MB of 1e6 bytes: what is there all the time, and what a step needs on top.

    Gradients come while what a whole batch kept for backward goes; they are there from the second part on of one that
    is cut. So a cut in two may take more than the whole, where weights outweigh what images need.
    """

    held_mb: float  # weights, optimizer, average, what libraries keep
    whole_mb: float  # of a step with the whole batch at once, gradients included
    gradients_mb: float  # held while the other parts of a batch that is cut into micro-batches come
    image_mb: float  # of one image of such a part
    waiting_mb: float  # of an image of the batch whose turn is not yet
    batch_size: int

    def tensors_mb(self, images: int) -> float:
        """What torch counts as allocated at the worst moment with `images` at once."""
        if images == self.batch_size:
            return self.held_mb + self.whole_mb
        waiting = self.waiting_mb * (self.batch_size - images)
        return self.held_mb + self.gradients_mb + waiting + self.image_mb * images

    def card_mb(self, images: int, factor: float = 1.0) -> float:
        """The same, times `factor`, with the driver's share: the smallest card that can do it."""
        return factor * self.tensors_mb(images) + DRIVER_MB


@dataclass(frozen=True)
class Footprint:
    """What a recipe takes in 32 and in 16 bits, and what it says of precision and of images at once."""

    full: TrainingMemory
    half: TrainingMemory
    precision: str
    micro_batch: int | None

    def on(self, bits: int | None) -> TrainingMemory:
        """On a card where `precision: auto` is `bits`; None: not known, so the benefit of the doubt."""
        in_full = self.precision == "float32" or (self.precision == "auto" and bits == 32)
        return self.full if in_full else self.half

    def images(self, memory_gb: float, bits: int | None) -> int | None:
        """The most images at once that a card of `memory_gb` may do with; None: it surely can do nothing with it."""
        return self._most(self.on(bits), memory_gb, NEVER)

    def text(self) -> str:
        """What a fold takes of a card in the precisions that the recipe may train in, for people."""
        kinds = {"float32": (32,), "auto": (32, 16)}.get(self.precision, (16,))
        memories = [(self.full if bits == 32 else self.half, bits) for bits in kinds]
        most, least = self._counts()[0], min(self._least(memory) for memory, _ in memories)

        def gigabytes(images: int) -> list[str]:
            return [f"{memory.card_mb(images) / 1e3:.1f} GB" for memory, _ in memories]

        whole = ", ".join(f"{size} in {bits} bits" for size, (_, bits) in zip(gigabytes(most), memories, strict=True))
        return whole + (f" (with micro_batch {least}: {', '.join(gigabytes(least))})" if least < most else "")

    def fits_text(self, memory_gb: float, bits: int | None) -> str:
        """How a card of `memory_gb` takes it, for people; for `auto` where its precision is not known, both ways."""
        if self.precision == "auto" and bits is None:
            full, half = (self.fits_text(memory_gb, known) for known in (32, 16))
            return full if full == half else f"{full} in 32 bits, {half} in 16 bits"
        images = self.images(memory_gb, bits)
        if images is None:
            return "does not fit"
        return "fits" if images == self._counts()[0] else f"fits with micro_batch {images}"

    def refusal(
        self, section: str, memory_gb: float, bits: int | None, card: str, spared: Footprint | None = None
    ) -> UserError:
        """The words for a `card` that is too small, with what would fit it. `spared`: it all with `checkpointing`."""
        now = self.on(bits)
        images, width = self._least(now), 32 if now is self.full else 16
        what = f"{section} needs {now.card_mb(images) / 1e3:.1f} GB of a card with {_at_once(images)} in {width} bits"
        mend = "; or ".join(self.ways(section, memory_gb, bits, spared))
        return UserError(f"{what}; {card} has {memory_gb:.1f} GB", where=section, mend=mend)

    def ways(self, section: str, memory_gb: float, bits: int | None, spared: Footprint | None = None) -> list[str]:
        """Each of them makes the recipe fit a card of `memory_gb` for sure, the one that changes least first."""
        now, found = self.on(bits), list[str]()
        if spared is not None and (images := spared._most(spared.on(bits), memory_gb, SURE)) is not None:
            found.append(f"{section}.checkpointing true ({_at_once(images)}; slower, the same result)")
        fewer = replace(self, micro_batch=None)._most(now, memory_gb, SURE)
        if self.micro_batch is not None and fewer is not None:
            found.append(f"{section}.micro_batch {fewer}, or null, which finds what fits")
        if now is self.full and (images := self._most(self.half, memory_gb, SURE)) is not None:
            found.append(f"{section}.precision float16 ({_at_once(images)})")
        if not found and spared is not None and (images := spared._most(spared.half, memory_gb, SURE)) is not None:
            both = f"{section}.checkpointing true and {section}.precision float16"
            found.append(f"{both} ({_at_once(images)})")
        if not found:
            found.append(f"a smaller {section}.image_size or {section}.model")
        return [*found, f"a card of {now.card_mb(self._least(now), SURE) / 1e3:.1f} GB"]

    def _counts(self) -> list[int]:
        """How many images at once there may be, most first: a number that the person set stays."""
        batch = self.full.batch_size
        if self.micro_batch is not None:
            return [self.micro_batch]
        return [count for count in range(batch, 0, -1) if batch % count == 0]

    def _most(self, memory: TrainingMemory, memory_gb: float, factor: float) -> int | None:
        return next((n for n in self._counts() if memory.card_mb(n, factor) <= 1e3 * memory_gb), None)

    def _least(self, memory: TrainingMemory) -> int:
        """With how many images at once it takes least."""
        return min(self._counts(), key=memory.tensors_mb)


def _at_once(images: int) -> str:
    return f"{images} image{'s' * (images > 1)} at once"
