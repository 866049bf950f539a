"""A card's memory: what is too large for it is named so, and whatever ends gives back what it took."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from card_support import begin, recipe_in, through_the_door
from fold_support import small_task
from processes import eventually

from shared_store.commits import read_result
from shared_store.records import Result
from shared_store.store import Store, open_store
from workers.apart import Apart
from workers.probe import probe
from workers.recipe import Recipe
from workers.run import Place, guarded
from workers.slot import Slot
from workers.staging import Buffer, Staging, size_of
from workers.state_file import flatten, pack
from workers.tasks import Failure, task_id, to_json

LARGE_SIDE, LIMIT_BYTES = 1024, 300 * 2**20
TOO_LARGE_SIDE, LEFT_BYTES = 2048, 3 * 10**9  # reckoned (workers/memory.py): 9.3 GB
A_FEW_BYTES = 32 * 2**20
ABOUT = {"epoch": 1}


@pytest.fixture
def small_card(card: str) -> Iterator[str]:
    """The card, of which this process may use a little beyond what it uses now."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(card).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(card) + LIMIT_BYTES) / total, card)
    yield card
    torch.cuda.set_per_process_memory_fraction(1.0, card)


def test_a_fold_too_large_for_the_card_is_out_of_memory_and_a_smaller_one_trains_after_it(
    tmp_path: Path, small_card: str
) -> None:
    large = begin(tmp_path / "large", recipe_in("float32", "best", image_size=LARGE_SIDE))
    outcome = through_the_door(large.task, large.store, large.cache, small_card)
    assert outcome.failure is Failure.OUT_OF_MEMORY, outcome.traceback
    assert "memory" in outcome.what and not outcome.transient
    small = begin(tmp_path / "small", recipe_in("float32", "best"))
    assert through_the_door(small.task, small.store, small.cache, small_card).failure is None
    assert read_result(small.store, task_id(small.task)) is not None


@pytest.mark.parametrize("side", [32, LARGE_SIDE])
def test_a_fold_that_ended_well_or_badly_leaves_no_tensor_on_the_card(
    tmp_path: Path, small_card: str, side: int
) -> None:
    first = begin(tmp_path / "first", recipe_in("float32"))
    through_the_door(first.task, first.store, first.cache, small_card)  # makes what libraries keep for good
    before = torch.cuda.memory_allocated(small_card)
    site = begin(tmp_path / "second", recipe_in("float32", image_size=side))
    outcome = through_the_door(site.task, site.store, site.cache, small_card)
    assert outcome.failure is (None if side == 32 else Failure.OUT_OF_MEMORY)
    assert torch.cuda.memory_allocated(small_card) <= before


def test_a_slot_s_fold_that_ended_well_or_badly_holds_no_memory_of_the_card(tmp_path: Path, card: str) -> None:
    """What torch and the libraries keep for later goes with the fold's process."""

    def ended(recipe: Recipe) -> Failure | None:
        task = small_task(store, recipe)
        return slot.run(task_id(task), to_json(task), 1).outcome.failure

    def taken() -> int:
        """Bytes of the card, by all processes."""
        free, total = torch.cuda.mem_get_info(card)
        return total - free

    def holds_nothing() -> bool:
        return eventually(lambda: taken() <= before + A_FEW_BYTES)

    store = open_store(str(tmp_path / "store"))
    small, large, other = (
        recipe_in("float32", "best", image_size=side, seed=seed)
        for side, seed in ((32, 0), (TOO_LARGE_SIDE, 0), (32, 1))
    )
    gc.collect()
    torch.cuda.empty_cache()
    before = taken()
    with contextlib.closing(Apart()) as apart:
        slot = Slot(Place(store.url, str(tmp_path / "cache"), 1.0, card, 1), apart)
        assert ended(small) is None and holds_nothing()
        ballast = torch.empty(torch.cuda.mem_get_info(card)[0] - LEFT_BYTES, dtype=torch.uint8, device=card)
        assert ended(large) is Failure.OUT_OF_MEMORY
        del ballast
        torch.cuda.empty_cache()
        assert holds_nothing()
        assert ended(other) is None and holds_nothing()


@pytest.mark.parametrize("pinned", [False, True])
def test_memory_that_no_machine_has_is_out_of_memory(store: Store, tmp_path: Path, card: str, pinned: bool) -> None:
    def execute(_store: Store, _nonce: str) -> Result:
        if pinned:
            torch.empty(2**46, dtype=torch.uint8, pin_memory=True)
        torch.empty(2**46, dtype=torch.uint8, device=card)
        raise AssertionError("not reached")

    outcome = guarded(begin(tmp_path, recipe_in("float32")).task, 1, lambda: store, execute)
    assert outcome.failure is Failure.OUT_OF_MEMORY, outcome.what
    assert torch.ones(1, device=card).item() == 1


def training(card: str, value: float) -> dict[str, object]:
    """A state as a fold on a card has it: weights there, in both memory formats, and a step count on the CPU."""
    weight = torch.full((64, 32, 3, 3), value, device=card).to(memory_format=torch.channels_last)
    model = {"conv.weight": weight, "bn.batches": torch.tensor(7, device=card), "half": weight.half()}
    moments = {0: {"step": torch.tensor(value), "exp_avg": torch.rand(1000, device=card)}}
    return {"learner": {"model": model, "optimizer": moments}, "none": torch.zeros(0, device=card)}


def test_a_snapshot_of_what_lies_on_the_card_is_copied_into_pinned_memory_whole(card: str) -> None:
    with ThreadPoolExecutor(1) as maker:
        staging, state = Staging(maker, pinned=True), training(card, 1.0)
        before = pack(state, ABOUT)
        tree, tensors = flatten(state)
        buffer = staging.take(size_of(tensors))
        assert buffer._memory.is_pinned()
        for _ in range(3):  # into new memory and into memory that was used
            busy = torch.rand(4096, 4096, device=card)
            for _ in range(20):  # the copy has to wait for what the card is at
                busy = busy @ busy / 4096
            tensors["/learner/model/conv.weight"].mul_(busy.sum().isfinite().float())
            snapshot = buffer.fill(tree, tensors)
            tensors["/learner/model/conv.weight"].fill_(9.0)  # the training goes on at once
            assert b"".join(snapshot.content(ABOUT)) == before
            tensors["/learner/model/conv.weight"].fill_(1.0)


def test_a_buffer_in_pinned_memory_takes_states_of_other_forms_one_after_the_other(card: str) -> None:
    with ThreadPoolExecutor(1) as helper:
        buffer = Buffer(1_000_000, True, helper)
        for state in (training(card, 1.0), {"only": torch.rand(3)}, {"none": "at all"}, training(card, 2.0)):
            tree, tensors = flatten(state)
            assert b"".join(buffer.fill(tree, tensors).content(ABOUT)) == pack(state, ABOUT)


def test_a_slot_with_a_card_passes_its_probe(card: str) -> None:
    found = probe(card, 1, slots=1, share=0.5, timed=True)
    assert found.passed, found.what
    assert found.speed is not None and found.speed > 0
    assert found.memory_gb == pytest.approx(torch.cuda.get_device_properties(card).total_memory / 2e9)
