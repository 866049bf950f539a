"""Whether a machine's torch can use its cards, and whether a fold has the room on them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from coordinator.findings import Finding, failed, warned, well
from workers.examined import Card, Examined
from workers.footprint import Footprint

# The oldest driver for all of a CUDA's minor versions: NVIDIA's table of minor version compatibility
_LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
_FIRST_TO_LAST_OF_126 = ((5, 0), (7, 0))  # Maxwell, Pascal and Volta: CUDA 13 has dropped them
_HELD_SHARE = 0.1  # of a card: what a desktop takes is less
_LATEST_OF_126 = (2, 14)


def card_findings(machine: str, examined: Examined, footprints: Mapping[str, Footprint]) -> Iterator[Finding]:
    """A line or more for each card; and one where torch does not see what the driver does."""
    seen = examined.cards_of_torch
    if not examined.cards and seen:
        yield well(machine, "card", f"the driver does not tell of it; torch trains on {', '.join(seen)}")
    elif not examined.cards:
        yield well(machine, "card", "none: trains on the processor")
    elif 0 < len(seen) < len(examined.cards):
        mend = "look at CUDA_VISIBLE_DEVICES there, unless that one is to be left out"
        yield warned(machine, "card", f"torch sees {len(seen)} of {len(examined.cards)} cards", mend)
    for card in examined.cards:
        wrong = _unusable(machine, card, examined)
        yield wrong or well(machine, "card", f"{card.name}, {_sm(card.capability)}, driver {card.driver}")
        if wrong is None:
            yield from _memory(machine, card, footprints)


def unusable_devices(examined: Examined) -> frozenset[str]:
    """What torch calls the cards of which is told that they do not do: how a training fails there is no news."""
    cards = (card for card in examined.cards if _unusable("", card, examined) is not None)
    return frozenset(f"cuda:{card.index}" for card in cards)


def runs_on(architectures: Sequence[str], capability: str) -> bool:
    """Whether kernels for `architectures` ("sm_75", "compute_90") run on a card of `capability` ("7.5").

    Machine code runs on cards of its own major version that are not older; code for `compute` is translated for any
    card that is not older. NVIDIA, CUDA C++ Programming Guide, sections on binary and PTX compatibility.
    """
    card = _pair(capability)
    if card is None:
        return True  # the driver does not say: a step of training will
    for name in architectures:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name)
        if found is None:
            continue
        built = int(found[2]), int(found[3])
        if built <= card and (found[1] == "compute" or built[0] == card[0]):
            return True
    return False


def _unusable(machine: str, card: Card, examined: Examined) -> Finding | None:
    torch = examined.versions.get("torch", "")
    if examined.torch_cuda is None:
        what = f"{card.name} is there, and torch {torch} is a build for processors alone"
        return failed(machine, "card", what, f"install torch {base(torch)} with CUDA there")
    if not runs_on(examined.torch_architectures, card.capability):
        what = (
            f"{card.name} is {_sm(card.capability)}, for which torch {torch} (CUDA {examined.torch_cuda}) has no code"
        )
        return failed(machine, "card", what, _remedy(card, examined))
    major = int(examined.torch_cuda.split(".")[0])
    least, driver = _LEAST_DRIVER.get(major, 0), int(card.driver.split(".")[0] or 0) if card.driver[:1].isdigit() else 0
    if driver and driver < least:
        what = f"driver {card.driver} is too old for torch {torch}, which is built for CUDA {examined.torch_cuda}"
        return failed(
            machine, "card", what, f"update NVIDIA's driver to {least} or later, or install a build for an older CUDA"
        )
    if examined.trained and not examined.cards_of_torch:
        mend = "look at CUDA_VISIBLE_DEVICES there, and whether `nvidia-smi` and the driver are of one version (reboot)"
        return failed(machine, "card", f"torch {torch} does not see {card.name}", mend)
    return None


def _remedy(card: Card, examined: Examined) -> str:
    first, last = _FIRST_TO_LAST_OF_126
    capability = _pair(card.capability) or (0, 0)
    torch, vision = (base(examined.versions.get(name, "")) for name in ("torch", "torchvision"))
    if capability < first:
        return "no torch that foldfleet runs on has code for it: leave this card out (`foldfleet join --gpus 0`)"
    if capability > last:
        return "install a newer torch there and on all other machines: this card is newer than the one it has"
    if (_pair(torch) or (0, 0)) > _LATEST_OF_126:
        latest = ".".join(map(str, _LATEST_OF_126))
        return f"torch {latest} was the last with code for it: install that on all machines, here built for CUDA 12.6"
    line = f'pip install --force-reinstall "torch=={torch}+cu126" "torchvision=={vision}+cu126"'
    return f"install the same torch built for CUDA 12.6 there: {line}, from pytorch's cu126 index (--index-url)"


def _memory(machine: str, card: Card, footprints: Mapping[str, Footprint]) -> Iterator[Finding]:
    """What is free on a card, who holds the rest, and what the recipes want of it."""
    if card.memory_gb is None:
        return
    held = card.used_gb or 0.0
    free = card.memory_gb - held
    bits = 32 if (_pair(card.capability) or (0, 0)) < (7, 0) else 16
    said = [
        (name, footprint.fits_text(card.memory_gb, bits), footprint.images(free, bits))
        for name, footprint in footprints.items()
    ]
    words = "; ".join(f"{name or 'recipe'} {text}" for name, text, _ in said)
    found = f"{free:.1f} of {card.memory_gb:.1f} GB free" + (f"; {words}" if words else "")
    if any(footprint.images(card.memory_gb, bits) is None for footprint in footprints.values()):
        ways = [way for name, one in footprints.items() for way in one.ways(name or "recipe", card.memory_gb, bits)]
        yield failed(machine, "card memory", found, "; or ".join(ways))
    elif held > _HELD_SHARE * card.memory_gb:
        programs = [f"{one.program} (pid {one.pid}{_size(one.memory_gb)})" for one in card.holders]
        mend = "end it before a run, or start with a smaller recipe.micro_batch"
        names = ", ".join(programs) or "a program that the driver does not name"
        too_little = any(images is None for *_, images in said)
        yield (failed if too_little else warned)(
            machine, "card memory", f"{found}; {held:.1f} GB held by {names}", mend
        )
    else:
        yield well(machine, "card memory", found)


def _size(memory_gb: float | None) -> str:
    return "" if memory_gb is None else f", {memory_gb:.1f} GB"


def base(version: str) -> str:
    """`2.14.1+cu130` -> `2.14.1`: what a build for another CUDA has in common with it."""
    return version.partition("+")[0]


def _sm(capability: str) -> str:
    return f"sm_{capability.replace('.', '')}"


def _pair(text: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", text)
    return None if found is None else (int(found[1]), int(found[2]))
