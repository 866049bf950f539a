"""Doubted labels: who is listed, in which order, and a sheet that shows them."""

import io

import numpy as np
from PIL import Image
from support import digit_rows

from shared_store.tables import SoftLabels
from workers.suspects import Suspect, contact_sheet, drawable, find_suspects, suspects_csv

CLASSES = ("calm", "wild")


def table(rows: dict[str, tuple[float, float]], teacher: str = "teacher-a") -> SoftLabels:
    probabilities = np.array(list(rows.values()), dtype=np.float32)
    return SoftLabels(tuple(rows), CLASSES, probabilities, (teacher,) * len(rows))


def found(*tables: SoftLabels, labels: dict[str, str]) -> tuple[Suspect, ...]:
    return find_suspects(tables, labels, {image_id: f"photos/{image_id}.jpg" for image_id in labels})


def test_only_doubted_labels_are_listed_the_strongest_doubt_first() -> None:
    first = table({"a": (0.4, 0.6), "b": (0.9, 0.1)})
    second = table({"c": (0.1, 0.9), "d": (0.2, 0.8)}, "teacher-b")
    suspects = found(first, second, labels={"a": "calm", "b": "calm", "c": "calm", "d": "wild"})
    assert [suspect.image_id for suspect in suspects] == ["c", "a"]
    assert suspects[0].teacher_class == "wild"
    assert suspects[0].teacher == "teacher-b"
    assert abs(suspects[0].strength - 0.8) < 1e-6


def test_equal_doubts_stand_in_the_order_of_their_paths() -> None:
    rows = {"z": (0.1, 0.9), "y": (0.1, 0.9)}
    assert [suspect.image_id for suspect in found(table(rows), labels={"z": "calm", "y": "calm"})] == ["y", "z"]


def test_several_teachers_are_averaged() -> None:
    tables = table({"a": (0.4, 0.6), "b": (0.3, 0.7)}, "teacher-b"), table({"a": (0.9, 0.1), "b": (0.4, 0.6)})
    (suspect,) = found(*tables, labels={"a": "calm", "b": "calm"})
    assert suspect.image_id == "b"
    assert suspect.teacher == "teacher-a teacher-b"
    assert abs(suspect.p_label - 0.35) < 1e-6


def test_images_not_asked_about_are_left_out() -> None:
    assert found(table({"composite": (0.1, 0.9)}), labels={"a": "calm"}) == ()


def test_csv_has_one_row_a_suspect() -> None:
    suspects = found(table({"a": (0.25, 0.75)}), labels={"a": "calm"})
    assert suspects_csv(suspects).decode() == (
        "image_id,path,label,teacher_class,p_label,p_teacher_class,teacher\n"
        "a,photos/a.jpg,calm,wild,0.25000,0.75000,teacher-a\n"
    )


def test_sheet_shows_at_most_forty_photos_and_repeats() -> None:
    rows, kept = digit_rows(per_class=24, classes=2, side=24)
    assert len(rows) > 40
    suspects = [Suspect(row.image_id, row.path, "calm", "wild", 0.1, 0.9, "teacher-a") for row in rows]
    sheet = contact_sheet(suspects, kept.__getitem__)
    assert sheet == contact_sheet(suspects, kept.__getitem__)
    forty = contact_sheet(suspects[:40], kept.__getitem__)
    with Image.open(io.BytesIO(sheet)) as whole, Image.open(io.BytesIO(forty)) as part:
        assert whole.format == "PNG"
        assert whole.size == part.size
    with Image.open(io.BytesIO(contact_sheet(suspects[:3], kept.__getitem__))) as few:
        assert few.size[1] < whole.size[1]


def test_letters_that_the_sheets_font_lacks_are_no_boxes() -> None:
    assert drawable("Dach Süd/été 猫.jpg") == "Dach Sud/ete ?.jpg"


def test_sheet_holds_the_photo_above_its_caption() -> None:
    rows, kept = digit_rows(per_class=1, classes=1)
    suspect = Suspect(rows[0].image_id, "a/very/long/path/" * 6 + "photo.jpg", "calm", "wild", 0.1, 0.9, "teacher-a")
    with Image.open(io.BytesIO(contact_sheet([suspect], kept.__getitem__))) as sheet:
        pixels = np.asarray(sheet)
    photo = pixels[40 : 40 + 176, 12 : 12 + 176]
    assert (photo < 60).mean() > 0.3  # a white digit on black
    below = pixels[40 + 176 :, 12 : 12 + 176 + 12]
    assert (below.min(axis=(1, 2)) < 200).sum() > 20  # three lines of text
    assert (pixels[40:, 12 + 176 + 12 :] == 255).all()  # a long path stays in its column


def test_nothing_doubted_gives_a_sheet_that_says_so() -> None:
    no_photos: dict[str, bytes] = {}
    sheet = contact_sheet([], no_photos.__getitem__)
    with Image.open(io.BytesIO(sheet)) as image:
        assert (np.asarray(image) < 128).any()
    assert suspects_csv([]).count(b"\n") == 1
