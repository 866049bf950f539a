"""The bundle's README.md: a model card that says what this is, what it was made from, how good it is, how to use it.

Nothing measured in seconds or bytes of memory is in it, so that the same winner gives the same card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from shared_store.folds_table import FoldTable, read_folds
from shared_store.records import Result
from shared_store.store import Store

_PARTS = ("train", "selection")


def model_card(index: Mapping[str, Any], search: Result, winners: Sequence[Mapping[str, Any]], store: Store) -> bytes:
    """The card of the bundle that `index` (bundle.json's values) describes. `winners` are the members' payloads."""
    folds = read_folds(store, str(winners[0]["folds"]))
    sections = [
        _what(index),
        f"## How good\n\n{search.texts['verdict']}",
        _data(folds, index["classes"]),
        _members(index, winners),
        _use(index),
        _caveats(index, winners),
    ]
    return ("\n\n".join(sections) + "\n").encode()


def _what(index: Mapping[str, Any]) -> str:
    count = len(index["members"])
    networks = "one network" if count == 1 else f"an ensemble of {count} networks ({index['combine']})"
    classes = ", ".join(f"`{name}`" for name in index["classes"])
    return (
        f"# Image classifier: {len(index['classes'])} classes\n\nMade by foldfleet: {networks}.\n\nClasses: {classes}."
    )


def _data(folds: FoldTable, classes: Sequence[str]) -> str:
    counts = Counter((row.part, row.label) for row in folds)
    rows = [[name, *(counts[part, name] for part in _PARTS)] for name in classes]
    rows.append(["all", *(len(folds.ids(part)) for part in _PARTS)])
    return (
        "## Data\n\nPhotos by class. The ensemble was chosen on `selection`, which no member ever saw; nothing was "
        f"chosen on test photos.\n\n{_table(['class', *_PARTS], rows)}"
    )


def _members(index: Mapping[str, Any], winners: Sequence[Mapping[str, Any]]) -> str:
    head = ["member", "network", "image size", "folds held out", "parameters", "multiply-adds", "weights"]
    rows = []
    for entry, winner in zip(index["members"], winners, strict=True):
        folds = ", ".join(str(fold) for fold in winner["held_out"])
        numbers = [f"{entry['parameters']:,}", f"{entry['multiply_adds']:,}"]
        rows.append([entry["name"], entry["architecture"], entry["image_size"], folds, *numbers, entry["file"]])
    return f"## Members\n\n{_table(head, rows)}"


def _use(index: Mapping[str, Any]) -> str:
    onnx = index["onnx"]
    inputs = ", ".join(f"`{name}`" for name in onnx["inputs"])
    how = (
        f"`{onnx['file']}` takes {inputs}: uint8 `[n, 3, size, size]`, RGB, photos shrunk as above, then longest side "
        "resized to the size and centred on black; it gives `logits` and `probabilities`, classes in the order above."
        if onnx["file"]
        else "To have an ONNX file, install `onnx` and `onnxruntime` (and see the reason above), then export again."
    )
    return (
        "## How to use\n\n"
        "    foldfleet predict THIS_FOLDER PHOTOS\n\n"
        "or from Python:\n\n"
        "    from workers.bundle import load_bundle\n"
        '    predictor = load_bundle("THIS_FOLDER")\n'
        '    photo = predictor.pixels(open("PHOTO", "rb").read())\n'
        "    logits = predictor.stacked_logits([photo])   # [n, classes]; softmax gives probabilities\n\n"
        f"Both first do to a photo what the run did to its own: longest side to {index['longest_side']} pixels by the "
        "area filter, if it is larger, and kept as JPEG of quality 95.\n\n"
        f"ONNX: {onnx['note']}. {how}"
    )


def _caveats(index: Mapping[str, Any], winners: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "The score is of the choice that did best among many on the selection photos, so it is a little too good; "
        "with few selection photos its interval is wide.",
        "Probabilities are not calibrated. Photos of anything else still get one of these classes.",
        f"Made with {' and '.join(f'{name} {version}' for name, version in sorted(index['versions'].items()))}; "
        "other versions, and GPUs, differ in the last digits.",
    ]
    if any(winner["labels"] for winner in winners):
        lines.append("Students learned partly from teachers' labels; the report prints the audit of those labels.")
    return "## Caveats\n\n" + "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; a `|` in a name would start a cell."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
