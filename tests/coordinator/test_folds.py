"""Folds are stratified, grouped, seeded and blind to the order of rows; bad data is refused by name."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from coordinator.folds import assign
from shared_store.errors import UserError
from shared_store.folds_table import FoldRow, FoldTable


@dataclass(frozen=True)
class Row:
    image_id: str
    path: str
    label: str
    group: str
    part: str = "train"


def rows(labels: Sequence[str], groups: Sequence[str] | None = None, part: str = "train") -> list[Row]:
    names = [f"{part}{place:04d}" for place in range(len(labels))]
    chosen = names if groups is None else groups
    return [
        Row(name, f"{label}/{name}.jpg", label, group, part)
        for name, label, group in zip(names, labels, chosen, strict=True)
    ]


def share(table: FoldTable, label: str, **where: object) -> float:
    whole = [row for row in table if row.label == label]
    return sum(all(getattr(row, key) == value for key, value in where.items()) for row in whole) / len(whole)


def test_four_even_classes_are_spread_evenly() -> None:
    table = assign(rows("abcd" * 150), 5, 0.15, 42)
    for label in "abcd":
        assert share(table, label, part="selection") == pytest.approx(0.15, abs=0.01)
        for fold in range(5):
            assert share(table, label, fold=fold) == pytest.approx(0.17, abs=0.01)
    sizes = Counter(row.fold for row in table if row.part == "train")
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_another_seed_deals_otherwise_and_the_same_seed_the_same() -> None:
    images = rows("ab" * 50)
    assert assign(images, 5, 0.2, 1).to_csv() == assign(images, 5, 0.2, 1).to_csv()
    assert assign(images, 5, 0.2, 1).to_csv() != assign(images, 5, 0.2, 2).to_csv()


def test_the_selection_part_does_not_depend_on_the_number_of_folds() -> None:
    images = rows("ab" * 50)
    assert assign(images, 5, 0.2, 1).ids("selection") == assign(images, 3, 0.2, 1).ids("selection")


def test_a_selection_part_that_is_given_is_left_as_it_is() -> None:
    images = rows("ab" * 20) + rows("ab" * 3, part="selection") + rows(["a", "", "b"], part="test")
    table = assign(images, 5, 0.2, 1)
    assert len(table.ids("selection")) == 6
    assert len(table.ids("train")) == 40
    assert len(table.ids("test")) == 3
    assert all(row.fold is None for row in table if row.part != "train")


def test_no_selection_is_cut_when_there_is_no_fraction() -> None:
    assert assign(rows("ab" * 20), 5, None, 1).ids("selection") == ()


def test_every_fold_and_the_selection_part_get_the_rarest_class() -> None:
    table = assign(rows(["common"] * 500 + ["rare"] * 6), 5, 0.15, 3)
    assert Counter((row.part, row.fold) for row in table if row.label == "rare") == Counter(
        [("selection", None), *(("train", fold) for fold in range(5))]
    )


def test_a_big_group_does_not_become_the_selection_part() -> None:
    labels = ["a"] * 100 + ["b"] * 100
    groups = ["big a"] * 60 + [f"a{n}" for n in range(40)] + ["big b"] * 60 + [f"b{n}" for n in range(40)]
    table = assign(rows(labels, groups), 3, 0.15, 1)
    assert len(table.ids("selection")) == pytest.approx(30, abs=2)


def unevenness(labels: Sequence[str], folds: Sequence[int], count: int) -> float:
    """The mean relative distance of a class's count in a fold from its even share."""
    totals, found = Counter(labels), Counter(zip(labels, folds, strict=True))
    return float(np.mean([abs(found[label, f] * count / totals[label] - 1) for label in totals for f in range(count)]))


def test_folds_of_grouped_rare_classes_are_as_even_as_scikit_learns() -> None:
    ours, theirs = [], []
    for seed in range(5):
        draw = np.random.default_rng(seed)
        labels, groups = [], []
        for group in range(150):
            main = draw.choice(list("abcd"), p=[0.5, 0.3, 0.15, 0.05])
            size = int(draw.integers(1, 9))
            labels += [str(main if draw.random() < 0.8 else draw.choice(list("abcd"))) for _ in range(size)]
            groups += [f"g{group}"] * size
        table = assign(rows(labels, groups), 5, None, seed)
        ours.append(unevenness([row.label for row in table], [row.fold or 0 for row in table], 5))
        folds = np.zeros(len(labels), int)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for fold, (_, out) in enumerate(splitter.split(labels, labels, groups)):
            folds[out] = fold
        theirs.append(unevenness(labels, folds.tolist(), 5))
    assert np.mean(ours) <= np.mean(theirs)


def refused(images: Sequence[Row], count: int = 5, fraction: float | None = 0.15) -> UserError:
    with pytest.raises(UserError) as error:
        assign(images, count, fraction, 42)
    assert error.value.mend
    return error.value


def test_no_images_are_refused() -> None:
    assert "no images" in refused([]).what
    assert "no images" in refused(rows(["a", "b"], part="test")).what


def test_a_single_class_is_refused_by_name() -> None:
    assert "a single class: 'cat'" in refused(rows(["cat"] * 50)).what


@pytest.mark.parametrize(("fraction", "found"), [(0.15, 5), (None, 4)])
def test_a_class_with_fewer_groups_than_it_takes_is_refused_by_name(fraction: float | None, found: int) -> None:
    groups = [f"c{n}" for n in range(50)] + [f"d{n % found}" for n in range(50)]
    error = refused(rows(["cat"] * 50 + ["dog"] * 50, groups), fraction=fraction)
    assert f"the class 'dog' has {found} groups" in error.what


def test_classes_that_share_their_groups_so_that_no_split_works_are_refused_by_name() -> None:
    # each class has two groups that must part, but x, y and z cannot all part over two folds
    circle = rows("aabbcc", ["x", "y", "y", "z", "x", "z"])
    assert "a fold would be without the class" in refused(circle, 2, None).what


def test_labels_that_only_other_parts_have_are_refused() -> None:
    assert "no train image has the label 'c'" in refused(rows("ab" * 20) + rows("c", part="test")).what


def test_a_selection_part_without_a_class_is_refused() -> None:
    error = refused(rows("ab" * 20) + rows("aa", part="selection"))
    assert "the selection part has no image of the class 'b'" in error.what


LABELS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=20, max_size=80)


@settings(max_examples=80, deadline=None)
@given(LABELS, st.integers(2, 5), st.sampled_from([None, 0.15, 0.4]), st.integers(0, 10), st.randoms())
def test_no_group_is_split_every_fold_has_every_class_and_order_is_nothing(
    drawn: list[tuple[str, int]], count: int, fraction: float | None, seed: int, shuffler: random.Random
) -> None:
    images = rows([label for label, _ in drawn], [f"group {number}" for _, number in drawn])
    try:
        table = assign(images, count, fraction, seed)
    except UserError:
        return  # the next test is about what may be refused
    places: dict[str, set[tuple[str, int | None]]] = {}
    for row in table:
        places.setdefault(row.group, set()).add((row.part, row.fold))
    assert all(len(found) == 1 for found in places.values())
    classes = {row.label for row in images}
    for fold in range(count):
        assert set(table.labels(table.ids("train", [fold]))) == classes
    if fraction is not None:
        assert set(table.labels(table.ids("selection"))) == classes
    shuffled = list(images)
    shuffler.shuffle(shuffled)
    assert assign(shuffled, count, fraction, seed).to_csv() == table.to_csv()
    assert sorted(row.image_id for row in table) == sorted(row.image_id for row in images)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcde"), st.lists(st.integers(1, 6), min_size=4, max_size=12), min_size=2),
    st.integers(2, 4),
    st.sampled_from([None, 0.1, 0.5]),
    st.integers(0, 3),
)
def test_what_can_be_split_is_never_refused(
    sizes: dict[str, list[int]], count: int, fraction: float | None, seed: int
) -> None:
    """With groups of one class each, as many groups as bins are enough."""
    needed = count + (fraction is not None)
    sizes = {label: [*found, 1] if len(found) < needed else found for label, found in sizes.items()}
    labels = [label for label, found in sizes.items() for size in found for _ in range(size)]
    groups = [f"{label}{n}" for label, found in sizes.items() for n, size in enumerate(found) for _ in range(size)]
    table = assign(rows(labels, groups), count, fraction, seed)
    assert table.classes == tuple(sorted(sizes))
    assert table.fold_count == count


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXT, st.tuples(TEXT, TEXT, st.sampled_from([0, 1, None])), max_size=8))
def test_a_fold_table_comes_back_from_its_csv(images: dict[str, tuple[str, str, int | None]]) -> None:
    table = FoldTable(
        FoldRow(image_id, path, label, image_id, "train" if fold is not None else "selection", fold)
        for image_id, (path, label, fold) in images.items()
    )
    data = table.to_csv()
    assert FoldTable.from_csv(data) == table
    assert FoldTable.from_csv(data).to_csv() == data


def test_the_csv_is_as_the_map_says() -> None:
    images = [FoldRow("2", "b,c.jpg", "cat", "g", "train", 1), FoldRow("1", "a.jpg", "", "1", "test", None)]
    assert FoldTable(images).to_csv().decode() == (
        'image_id,path,label,group,part,fold\n1,a.jpg,,1,test,\n2,"b,c.jpg",cat,g,train,1\n'
    )


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("1,a,cat,g,train,0\n1,b,cat,g,train,0\n", "image 1 twice"),
        ("1,a,cat,g,train,0\n2,b,cat,g,train,1\n", "the group g"),
        ("1,a,cat,g,train,0\n2,b,cat,g,test,\n", "the group g"),
        ("1,a,cat,g,train,\n", "fold None"),
        ("1,a,cat,g,test,0\n", "fold 0"),
        ("1,a,cat,g,validation,0\n", "part 'validation'"),
        ("1,a,,g,train,0\n", "without a label"),
        ("1,a,cat,g,train,zero\n", "row 2"),
        ("1,a,cat\n", "row 2"),
    ],
)
def test_a_fold_table_that_breaks_a_rule_is_refused(body: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        FoldTable.from_csv(b"image_id,path,label,group,part,fold\n" + body.encode())


def test_a_csv_with_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="columns"):
        FoldTable.from_csv(b"path,fold\na,0\n")
