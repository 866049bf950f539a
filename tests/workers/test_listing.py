"""Photos are listed by folder or CSV; labels come from the first folder or the column, and nothing else."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest

from shared_store.errors import UserError
from workers.listing import Listing, Source, clean, list_photos


def files(root: Path, *paths: str) -> Path:
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"a photo, as far as a list is concerned")
    return root


def table(root: Path, text: str, name: str = "photos.csv") -> str:
    (root / name).write_text(text, encoding="utf-8")
    return str(root / name)


def labels(sources: Iterable[Source]) -> dict[str, str]:
    return {source.path: source.label for source in sources}


def parts(listing: Listing) -> dict[str, str]:
    return {source.path: source.part for source in listing.sources}


def test_the_label_is_the_first_folder_and_never_a_piece_of_the_path(tmp_path: Path) -> None:
    root = files(tmp_path / "smoking_calling", "normal/smoking.jpg", "smoking/normal/calling/1.png", "calling/2.jpg")
    assert labels(list_photos(str(root)).sources) == {
        "normal/smoking.jpg": "normal",
        "smoking/normal/calling/1.png": "smoking",
        "calling/2.jpg": "calling",
    }


def test_every_suffix_and_name_is_taken_and_everything_else_is_named(tmp_path: Path) -> None:
    root = files(tmp_path, "a/1.JPG", "a/2.jpeg", "a/ü 3.PnG", "b/写真.webp", "b/x.tif", "b/x.gif", "b/x.bmp")
    files(root, "a/notes.txt", ".DS_Store", "a/._1.JPG", "__MACOSX/a/1.jpg", ".cache/1.jpg", "a/x.heic", "loose.jpg")
    listing = list_photos(str(root))
    assert sorted(labels(listing.sources)) == sorted(
        ["a/1.JPG", "a/2.jpeg", "a/ü 3.PnG", "b/写真.webp", "b/x.bmp", "b/x.gif", "b/x.tif"]
    )
    assert [(row.path, row.reason) for row in listing.rejected] == [
        ("a/x.heic", ".heic files are not read: export it as JPEG or PNG"),
        ("loose.jpg", "lies in no class folder"),
    ]
    assert listing.ignored == ("a/notes.txt",)


def test_the_order_is_the_path_and_not_the_disks(tmp_path: Path) -> None:
    root = files(tmp_path, "b/2.jpg", "a/9.jpg", "b/1.jpg", "a/10.jpg", "B/1.jpg")
    paths = [source.path for source in list_photos(str(root)).sources]
    assert paths == sorted(paths)


def test_names_that_one_system_composes_and_another_does_not_are_one_name(tmp_path: Path) -> None:
    root = files(tmp_path, unicodedata.normalize("NFD", "é/é.jpg"), "b/1.jpg")
    source = list_photos(str(root)).sources[1]
    assert (source.path, source.label) == (unicodedata.normalize("NFC", "é/é.jpg"), unicodedata.normalize("NFC", "é"))
    assert Path(source.file).exists()


def test_a_name_that_is_no_unicode_can_still_be_written_down() -> None:
    clean(os.fsdecode(b"a\xff.jpg")).encode()


def test_linked_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    elsewhere = files(tmp_path / "elsewhere", "1.jpg")
    root = files(tmp_path / "data", "a/1.jpg")
    (root / "b").symlink_to(elsewhere)
    (root / "a" / "up").symlink_to(root)
    assert labels(list_photos(str(root)).sources) == {"a/1.jpg": "a", "b/1.jpg": "b"}


def test_a_flat_test_folder_is_unlabelled_and_one_of_class_folders_is_labelled(tmp_path: Path) -> None:
    root = files(tmp_path / "data", "cat/1.jpg", "dog/1.jpg")
    flat = files(tmp_path / "flat", "1.jpg", "day one/2.jpg")
    listing = list_photos(str(root), test=str(flat))
    assert labels(s for s in listing.sources if s.part == "test") == {"1.jpg": "", "day one/2.jpg": ""}
    foldered = files(tmp_path / "foldered", "cat/a.jpg", "dog/deep/b.jpg", "c.jpg")
    listing = list_photos(str(root), test=str(foldered))
    assert labels(s for s in listing.sources if s.part == "test") == {
        "cat/a.jpg": "cat",
        "dog/deep/b.jpg": "dog",
        "c.jpg": "",
    }


@pytest.mark.parametrize("part", ["selection", "test"])
def test_a_misspelt_class_folder_is_refused_with_the_nearest_name(tmp_path: Path, part: str) -> None:
    root = files(tmp_path / "data", "smoking/1.jpg", "normal/1.jpg")
    other = files(tmp_path / "other", "smokng/1.jpg", "normal/2.jpg")
    with pytest.raises(UserError, match="'smokng'") as refused:
        list_photos(str(root), **{part: str(other)})
    assert "nearest: smoking" in refused.value.mend
    assert refused.value.where == "smokng/1.jpg"


def test_a_csv_gives_label_group_and_part(tmp_path: Path) -> None:
    files(tmp_path, "p/1.jpg", "p/2.jpg", "q/1.jpg", "q/2.jpg")
    lines = ["\ufeffPath, label ,group,part", "p/1.jpg,cat,anna,", "p\\2.jpg,dog,,train"]
    lines += ["q/1.jpg,cat,,selection", "q/2.jpg,,,test"]
    listing = list_photos(table(tmp_path, "\n".join(lines)))
    assert [(s.path, s.label, s.group, s.part) for s in listing.sources] == [
        ("q/1.jpg", "cat", "", "selection"),
        ("q/2.jpg", "", "", "test"),
        ("p/1.jpg", "cat", "anna", "train"),
        ("p/2.jpg", "dog", "", "train"),
    ]
    assert all(Path(source.file).is_file() for source in listing.sources)


def test_a_csv_with_absolute_paths_says_the_same_as_one_with_relative_paths(tmp_path: Path) -> None:
    files(tmp_path, "p/1.jpg", "p/2.jpg")
    relative = list_photos(table(tmp_path, "path,label\np/1.jpg,cat\np/../p/2.jpg,dog\n"))
    absolute = list_photos(table(tmp_path, f"path,label\n{tmp_path}/p/1.jpg,cat\n{tmp_path}/p/2.jpg,dog\n"))
    assert relative == absolute


def test_a_test_csv_needs_no_label(tmp_path: Path) -> None:
    root = files(tmp_path / "data", "cat/1.jpg", "dog/1.jpg")
    files(tmp_path, "t/1.jpg")
    listing = list_photos(str(root), test=table(tmp_path, "path\nt/1.jpg\n"))
    assert parts(listing) == {"t/1.jpg": "test", "cat/1.jpg": "train", "dog/1.jpg": "train"}


def test_missing_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="DATA does not exist") as refused:
        list_photos(str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in refused.value.where


@pytest.mark.parametrize("paths", [(), ("a/notes.txt",), ("loose.jpg",)])
def test_data_without_photos_is_refused(tmp_path: Path, paths: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="holds no photo") as refused:
        list_photos(str(files(tmp_path, *paths)))
    assert "one folder per class" in refused.value.mend


def test_a_file_that_is_no_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder nor a CSV"):
        list_photos(str(files(tmp_path, "photos.zip") / "photos.zip"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("file,class\n1.jpg,cat\n", "lacks the column path and label .found: file, class"),
        ("path;label\n1.jpg;cat\n", "lacks the column path and label"),
        ("path,label\n9.jpg,cat\n", "names a photo that does not exist: 9.jpg"),
        ("path,label\n1.jpg,\n", "has a train photo without a label"),
        ("path,label\n,cat\n", "has a row without a path"),
        ("path,label,part\n1.jpg,cat,validation\n", "has the part 'validation'"),
        ("path,label\n1.jpg,cat,9,9\n", "cannot be read as a CSV|names a photo"),
        ("", "cannot be read as a CSV"),
        ("path,label\n", "holds no photo"),
    ],
)
def test_a_csv_that_cannot_be_used_says_where(tmp_path: Path, text: str, what: str) -> None:
    files(tmp_path, "1.jpg")
    with pytest.raises(UserError, match=what) as refused:
        list_photos(table(tmp_path, text))
    assert "photos.csv" in refused.value.where
    assert refused.value.mend


def test_a_csv_row_is_named_by_its_line(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg")
    with pytest.raises(UserError) as refused:
        list_photos(table(tmp_path, "path,label\n1.jpg,cat\n2.jpg,cat\n"))
    assert refused.value.where.endswith("photos.csv, line 3")


def test_a_csv_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_bytes("path,label\n1.jpg,café\n".encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read as a CSV"):
        list_photos(str(tmp_path / "photos.csv"))


def test_a_part_given_twice_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "2.jpg", "more/cat/1.jpg")
    data = table(tmp_path, "path,label,part\n1.jpg,cat,train\n2.jpg,cat,selection\n")
    with pytest.raises(UserError, match="selection photos are given twice"):
        list_photos(data, selection=str(tmp_path / "more"))


def test_a_part_column_cannot_move_test_photos_into_training(tmp_path: Path) -> None:
    root = files(tmp_path / "data", "cat/1.jpg", "dog/1.jpg")
    files(tmp_path, "1.jpg")
    with pytest.raises(UserError, match="--test has the part 'train'"):
        list_photos(str(root), test=table(tmp_path, "path,label,part\n1.jpg,cat,train\n"))
