"""A state comes back from its file as it was, and the file is one that any reader of safetensors understands."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workers.state_file import DamagedStateError, flatten, pack, part, tensor_names, unpack


def state(value: float) -> dict[str, Tensor]:
    return {"weights": torch.full((2, 3), value)}


PLAIN = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
TENSORS = st.builds(
    lambda kind, shape: (torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape) / 3).to(kind),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
    st.lists(st.integers(0, 3), max_size=4),
)
TREES = st.recursive(
    PLAIN | st.text(max_size=5) | TENSORS | st.sampled_from([torch.bfloat16, torch.float32]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


def equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        same_kind = type(one) is type(other) and len(one) == len(other)  # type: ignore[arg-type]
        return same_kind and all(map(equal, one, other))  # type: ignore[arg-type]
    return type(one) is type(other) and one == other


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_any_tree_of_tensors_and_values_comes_back_as_it_was(tree: object) -> None:
    back, about = unpack(pack({"tree": tree}, {"task": "t"}))
    assert equal(back["tree"], tree)
    assert about == {"task": "t"}


def test_keys_that_print_alike_are_kept_apart() -> None:
    tree = {1: torch.zeros(2), "1": torch.ones(2)}
    assert equal(unpack(pack(tree, {}))[0], tree)


def test_equal_states_give_equal_bytes_and_memory_order_is_kept() -> None:
    weights = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    tree = {"weights": weights, "names": ["b", "a"], "other": torch.zeros(3)}
    assert pack(tree, {"b": 1, "a": 2}) == pack(tree, {"a": 2, "b": 1})
    back, _ = unpack(pack(tree, {}))
    assert back["weights"].stride() == weights.stride()
    assert torch.equal(back["weights"], weights)


def test_what_is_no_checkpoint_or_not_finite_is_refused() -> None:
    good = pack(state(1.0), {})
    for bad in (b"", b"garbage", good[:40], good[:-1]):
        with pytest.raises(DamagedStateError, match="not a checkpoint"):
            unpack(bad)
    with pytest.raises(DamagedStateError, match="not finite, such as /weights"):
        unpack(pack(state(float("nan")), {}))
    with pytest.raises(TypeError, match="cannot be kept"):
        pack({"function": len}, {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack({"loss": float("nan")}, {})


@settings(max_examples=40, deadline=None)
@given(tensors=st.dictionaries(st.text(min_size=1, max_size=4), TENSORS, max_size=6))
def test_the_bytes_are_those_that_safetensors_itself_writes(tensors: dict[str, Tensor]) -> None:
    data = pack(tensors, {"task": "t"})
    length = int.from_bytes(data[:8], "little")
    own = json.loads(data[8 : 8 + length])["__metadata__"]
    named = {f"/{name}": tensor for name, tensor in tensors.items()}
    assert data == safetensors.torch.save(named, own)


def test_every_type_that_torch_and_safetensors_share_is_kept() -> None:
    kinds = [
        torch.float8_e5m2,
        torch.float8_e4m3fn,
        torch.uint16,
        torch.uint64,
        torch.complex64,
        torch.int8,
        torch.half,
    ]
    tensors = {str(kind): torch.ones(3).to(kind) for kind in kinds}
    data = pack(tensors, {})
    back = unpack(data)[0]
    assert all(torch.equal(back[name].view(torch.uint8), tensors[name].view(torch.uint8)) for name in tensors)


def test_weights_that_are_tied_are_kept_twice_and_come_back_equal() -> None:
    weights = torch.rand(3)
    back, _ = unpack(pack({"one": weights, "other": weights}, {}))
    assert torch.equal(back["one"], weights) and torch.equal(back["other"], weights)


def test_a_part_of_a_state_names_its_own_tensors_alone() -> None:
    tree, _ = flatten({"learner": {"model": state(1), "others": [state(2)]}, "epoch": 3})
    assert list(tensor_names(part(tree, ("learner", "model")))) == ["/learner/model/weights"]
    assert len(list(tensor_names(tree))) == 2
