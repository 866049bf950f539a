"""The forms in which predictions are written: `predictions.csv` and `predictions.json`. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Names = Sequence[str]
Probabilities = NDArray[np.float64]
"""[photos, classes], rows that sum to 1."""


def prediction_csv(names: Names, classes: Names, probabilities: Probabilities) -> bytes:
    """`image,category,score,p_<class>...` to 5 decimals, in the given order."""
    head = ("image", "category", "score", *(f"p_{name}" for name in classes))
    rows = [
        (name, classes[int(p.argmax())], f"{p.max():.5f}", *(f"{value:.5f}" for value in p))
        for name, p in zip(names, probabilities, strict=True)
    ]
    return _csv([head, *rows])


def prediction_json(names: Names, classes: Names, probabilities: Probabilities) -> bytes:
    """The competition's form: a list of {image_name, category, score}, the score to 5 decimals; one row a line."""
    rows = [
        {"image_name": name, "category": classes[int(p.argmax())], "score": round(float(p.max()), 5)}
        for name, p in zip(names, probabilities, strict=True)
    ]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]\n".encode()


def rejected_csv(rejected: Sequence[tuple[str, str]]) -> bytes:
    """`image,reason`: photos that could not be read."""
    return _csv([("image", "reason"), *rejected])


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
