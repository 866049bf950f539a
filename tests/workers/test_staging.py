"""A snapshot is the state as it was, however the training goes on, in memory that is made once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from shared_store.backend import Content
from workers.staging import Buffer, Staged, Staging, size_of
from workers.state_file import flatten, pack, unpack

HELPER = ThreadPoolExecutor(1)
ABOUT = {"task": "t", "epoch": 1}


@pytest.fixture
def maker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def training(value: float) -> dict[str, object]:
    """A state with what real ones have: several types, a channels_last weight, plain values, an empty tensor."""
    weight = torch.full((4, 3, 2, 2), value).to(memory_format=torch.channels_last)
    model = {"conv.weight": weight, "bn.batches": torch.tensor(7), "flags": torch.tensor([True, False])}
    moments = {0: {"step": torch.tensor(value), "exp_avg": torch.rand(5).double()}}
    return {"learner": {"model": model, "optimizer": moments, "none": torch.zeros(0)}, "story": {"log": ["a", "b"]}}


def staged(state: object, buffer: Buffer | None = None) -> Staged:
    tree, tensors = flatten(state)
    return (buffer or Buffer(size_of(tensors), False, HELPER)).fill(tree, tensors)


def joined(content: Content) -> bytes:
    return b"".join(content)


def test_a_snapshot_gives_the_bytes_of_the_state_in_one_go() -> None:
    state = training(1.0)
    assert joined(staged(state).content(ABOUT)) == pack(state, ABOUT)


def test_a_snapshot_does_not_follow_the_training() -> None:
    state = training(1.0)
    before, snapshot = pack(state, ABOUT), staged(state)
    model = state["learner"]["model"]  # type: ignore[index]
    model["conv.weight"].fill_(9.0)
    state["story"]["log"].append("c")  # type: ignore[index]
    assert joined(snapshot.content(ABOUT)) == before


def test_a_part_of_a_snapshot_is_a_file_of_its_own() -> None:
    state = training(2.0)
    weights, about = unpack(joined(staged(state).content({"best_epoch": 3}, ("learner", "model"))))
    model: dict[str, Tensor] = state["learner"]["model"]  # type: ignore[index]
    assert about == {"best_epoch": 3} and list(weights) == list(model)
    for name, value in model.items():
        assert torch.equal(weights[name], value) and weights[name].stride() == value.stride()


def test_a_buffer_takes_states_of_other_forms_one_after_the_other() -> None:
    buffer = Buffer(10_000, False, HELPER)
    for state in (training(1.0), {"only": torch.rand(3)}, {"none": "at all"}, training(2.0)):
        assert joined(staged(state, buffer).content(ABOUT)) == pack(state, ABOUT)


def test_weights_that_are_still_trained_can_be_staged() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    assert joined(staged({"p": parameter}).content({})) == pack({"p": torch.ones(3)}, {})


def test_two_buffers_take_turns_and_larger_ones_take_their_place(maker: ThreadPoolExecutor) -> None:
    staging = Staging(maker, pinned=False)
    staging.prepare(100)
    one, other = staging.take(100), staging.take(50)
    assert one is not other
    staging.give(one)
    assert staging.take(100) is one
    staging.give(one)
    large = staging.take(200)
    staging.give(other)  # too small by now
    larger = staging.take(200)
    assert {large.size, larger.size} == {200}
