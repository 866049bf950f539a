"""What nvidia-smi says of a card is what torch says of it, and reaches a slot's reports."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from processes import eventually

from workers.cards import card_of, cards
from workers.run import Place
from workers.slot import Slot
from workers.tasks import Progress

pytestmark = pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no nvidia-smi here")


def test_the_card_that_torch_uses_is_found_and_told_of_truly(card: str) -> None:
    held = torch.ones(2**28, dtype=torch.uint8, device=card)
    found, known = card_of(card, os.environ.get("CUDA_VISIBLE_DEVICES")), torch.cuda.get_device_properties(card)
    assert found is not None and found.index in {each.index for each in cards()}
    assert (found.name, found.uuid) == (known.name, f"GPU-{known.uuid}")
    assert found.capability == f"{known.major}.{known.minor}"
    assert found.memory_gb == pytest.approx(known.total_memory / 1e9, rel=0.1)  # the driver keeps a part for itself
    assert found.used_gb is not None and found.used_gb > held.nbytes / 1e9
    assert found.temperature_celsius is not None and 0 < found.temperature_celsius < 120


def test_a_slot_s_reports_say_how_full_and_warm_its_card_is(tmp_path: Path, card: str) -> None:
    slot = Slot(Place(str(tmp_path / "store"), str(tmp_path / "cache"), 1.0, card, 1))

    def told() -> bool:
        slot.keep(Progress("fold", 1))
        (report,) = slot.reports()
        return None not in (report.card, report.gpu_memory_gb, report.temperature_celsius)

    assert eventually(told)
