"""Full resume state <-> the bytes of one safetensors file. Nothing is ever unpickled.

A state is nested tables of tensors and plain values (`Learner.state()` and the fold's story). The file's header holds
the tables as JSON, with every tensor named by its place; strides are kept, because the order in memory decides the
order of sums. Tensors lie in the order that safetensors itself writes: by type, then by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from shared_store.records import canonical_json

_HEADER = "foldfleet"
_ALIGNMENT = 8
_TYPES = {  # in safetensors' own order, by which it sorts backwards
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
_RANKS = {kind: rank for rank, kind in enumerate(reversed(_TYPES))}


class DamagedStateError(Exception):
    """A state that cannot be trusted: its bytes, its shape, or a number in it that is not finite."""


@dataclass(frozen=True)
class Placed:
    """One tensor of a file: what it is, and where its bytes (in C order) begin and end among all of them."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    end: int


def flatten(state: object) -> tuple[object, dict[str, Tensor]]:
    """A state as JSON values of its own, in which {"tensor": name} stands for a tensor, and the tensors by name.

    TypeError for what cannot be kept.
    """
    tensors: dict[str, Tensor] = {}
    return _encoded(state, "", tensors), tensors


def placed(tensors: Mapping[str, Tensor]) -> dict[str, Placed]:
    """Where each tensor goes, in the file's order."""
    places, start = {}, 0
    for name in sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype], name)):
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        places[name] = Placed(tensor.dtype, tuple(tensor.shape), tensor.stride(), start, end)
        start = end
    return places


class Layout:
    """Where the tensors of a state lie in a file. What that fixes of the header is made once, for it takes a while."""

    def __init__(self, places: Mapping[str, Placed]) -> None:
        self.places = places
        self._strides = {name: place.strides for name, place in places.items()}
        table = {
            name: {"dtype": _TYPES[place.dtype], "shape": place.shape, "data_offsets": [place.start, place.end]}
            for name, place in places.items()
        }
        self._table = _json(table)

    def header(self, tree: object, about: Mapping[str, Any]) -> bytes:
        """The file up to the first tensor's bytes. ValueError for a float that is not finite outside a tensor."""
        # One key only: safetensors writes its header's keys in no fixed order.
        own = canonical_json({"about": dict(about), "tree": tree, "strides": self._strides}).decode()
        metadata = _json({"__metadata__": {_HEADER: own}})
        text = (f"{metadata[:-1]},{self._table[1:]}" if self.places else metadata).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        return len(text).to_bytes(8, "little") + text


def pack(state: object, about: Mapping[str, Any]) -> bytes:
    """Nested dicts, lists, tuples, tensors and plain values as a file's bytes; the same state, the same bytes.

    `about` is kept beside it (task, epoch ...). ValueError for a float that is not finite outside a tensor.
    """
    tree, tensors = flatten(state)
    layout = Layout(placed(tensors))
    # A flat view of the memory would be faster, but a reader without the header should see the right tensors.
    plain = [tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8) for name in layout.places]
    return b"".join([layout.header(tree, about), *(flat.numpy().data for flat in plain)])


def unpack(data: bytes) -> tuple[Any, dict[str, Any]]:
    """What `pack` was given: (state, about). DamagedStateError when it is no such file, or a tensor is not finite."""
    try:
        length = int.from_bytes(data[:8], "little")
        own = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
        loaded = safetensors.torch.load(data)
        tensors = {name: _with_strides(tensor, own["strides"][name]) for name, tensor in loaded.items()}
        state = _decoded(own["tree"], tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedStateError(f"it is not a checkpoint of this foldfleet ({error})") from error
    bad = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if bad:
        raise DamagedStateError(f"{len(bad)} tensors hold numbers that are not finite, such as {bad[0]}")
    return state, own["about"]


def part(tree: Any, path: Sequence[str]) -> Any:
    """The part of a flattened state below the keys of `path`."""
    for key in path:
        tree = dict(tree["items"])[key]
    return tree


def tensor_names(tree: Any) -> Iterator[str]:
    """The names of the tensors that a flattened state, or a part of one, stands for."""
    if not isinstance(tree, dict):
        return
    ((kind, content),) = tree.items()
    if kind == "tensor":
        yield content
    elif kind == "items":
        for pair in content:
            for half in pair:
                yield from tensor_names(half)
    elif kind in ("list", "tuple"):
        for item in content:
            yield from tensor_names(item)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _encoded(value: object, path: str, tensors: dict[str, Tensor]) -> object:
    """JSON for `value` at `path`; tensors move to `tensors` under their path and leave that."""
    if isinstance(value, Tensor):
        name = path if path not in tensors else f"{path}#{len(tensors)}"  # keys 1 and "1" make one path
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[_encoded(k, path, tensors), _encoded(v, f"{path}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_encoded(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.dtype):  # some optimizers keep the one of their momentum
        return {"dtype": str(value).removeprefix("torch.")}
    raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint: {path}")


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dtype":
        found = getattr(torch, content)
        if not isinstance(found, torch.dtype):
            raise ValueError(f"{content} is no dtype")
        return found
    if kind == "items":
        return {_decoded(k, tensors): _decoded(v, tensors) for k, v in content}
    parts = [_decoded(item, tensors) for item in content]
    return tuple(parts) if kind == "tuple" else parts


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # torch does not ask 8-bit floats
    return bool(wide.isfinite().all())


def _with_strides(tensor: Tensor, strides: list[int]) -> Tensor:
    return torch.empty_strided(tuple(tensor.shape), tuple(strides), dtype=tensor.dtype).copy_(tensor)
