"""The labels that teachers doubt most: a table and a contact sheet for a person to look at. Pure but for drawing.

A photo is a suspect when the out-of-fold label's top class is not the given one. The strength of the disagreement is
p(top class) - p(given class), and suspects stand in falling order of it. Where several teachers held a photo out
(nested labels) their probabilities are averaged. Nothing is relabelled here: the person decides.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from shared_store.tables import SoftLabels
from workers.decode import decode
from workers.framing import EvaluationTransform

SHEET_PHOTOS = 40
_COLUMNS, _SIDE, _GAP, _LINE, _FONT_PIXELS = 5, 176, 12, 16, 12
_CAPTION_LINES = 3


@dataclass(frozen=True)
class Suspect:
    """One doubted label. `teacher`: task ids of those that held the photo out, joined by a space."""

    image_id: str
    path: str
    label: str
    teacher_class: str
    p_label: float
    p_teacher_class: float
    teacher: str

    @property
    def strength(self) -> float:
        return self.p_teacher_class - self.p_label


def find_suspects(
    tables: Sequence[SoftLabels], labels: Mapping[str, str], paths: Mapping[str, str]
) -> tuple[Suspect, ...]:
    """All doubted labels, the strongest doubt first (then by path).

    `labels` and `paths` are by image id, of the photos to look at; rows of other images (composites) are left out.
    """
    rows: dict[str, list[tuple[NDArray[np.float32], str]]] = {}
    for table in tables:
        for image_id, row, teacher in zip(table.image_ids, table.probabilities, table.teachers, strict=True):
            if image_id in labels:
                rows.setdefault(image_id, []).append((row, teacher))
    found = []
    for image_id, opinions in rows.items():
        mean = np.stack([row for row, _ in opinions]).astype(np.float64).mean(axis=0)
        classes, given, top = tables[0].classes, labels[image_id], int(mean.argmax())
        if classes[top] == given:
            continue
        found.append(
            Suspect(
                image_id=image_id,
                path=paths[image_id],
                label=given,
                teacher_class=classes[top],
                p_label=float(mean[classes.index(given)]),
                p_teacher_class=float(mean[top]),
                teacher=" ".join(sorted({teacher for _, teacher in opinions})),
            )
        )
    return tuple(sorted(found, key=lambda suspect: (-suspect.strength, suspect.path)))


def suspects_csv(suspects: Sequence[Suspect]) -> bytes:
    """`suspects.csv`: one row a suspect, probabilities to 5 decimals, `\\n` line ends, UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Suspect)])
    for suspect in suspects:
        writer.writerow([f"{value:.5f}" if isinstance(value, float) else value for value in astuple(suspect)])
    return text.getvalue().encode()


def contact_sheet(suspects: Sequence[Suspect], image_bytes: Callable[[str], bytes]) -> bytes:
    """A PNG with the first SHEET_PHOTOS suspects, each with its label, the teacher's word and its path."""
    shown = suspects[:SHEET_PHOTOS]
    cell_width, cell_height = _SIDE + _GAP, _SIDE + _CAPTION_LINES * _LINE + _GAP
    rows = max(1, -(-len(shown) // _COLUMNS))
    top = _GAP + _LINE + _GAP
    sheet = Image.new("RGB", (_GAP + _COLUMNS * cell_width, top + rows * cell_height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PIXELS)
    draw.text((_GAP, _GAP), _title(len(shown), len(suspects)), fill="black", font=font)
    thumbnail = EvaluationTransform(_SIDE)
    for place, suspect in enumerate(shown):
        row, column = divmod(place, _COLUMNS)
        left, upper = _GAP + column * cell_width, top + row * cell_height
        pixels = thumbnail(decode(image_bytes(suspect.image_id), _SIDE))
        sheet.paste(Image.fromarray(pixels), (left, upper))
        for number, (line, colour) in enumerate(_caption(suspect)):
            fitted = _fitted(drawable(line), lambda text: float(draw.textlength(text, font=font)))
            draw.text((left, upper + _SIDE + 2 + number * _LINE), fitted, fill=colour, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def drawable(text: str) -> str:
    """Letters that the font has, which are those of ASCII: others without their accents, or a question mark."""
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return bare.encode("ascii", "replace").decode()


def _title(shown: int, suspects: int) -> str:
    if not suspects:
        return "The teachers doubt no label."
    return f"The {shown} most doubted of {suspects} labels that the teachers doubt, the strongest doubt first"


def _caption(suspect: Suspect) -> tuple[tuple[str, str], ...]:
    return (
        (f"{suspect.p_label:.2f} {suspect.label} (given)", "black"),
        (f"{suspect.p_teacher_class:.2f} {suspect.teacher_class}", "firebrick"),
        (suspect.path, "dimgray"),
    )


def _fitted(text: str, width: Callable[[str], float]) -> str:
    """`text`, or its two ends around dots where the whole is wider than a thumbnail."""
    shorter, kept = text, len(text)
    while width(shorter) > _SIDE:
        kept -= 1
        shorter = text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]
    return shorter
