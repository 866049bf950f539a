"""Batches: an order and pixels that repeat, whatever the history, the threads and the order of the ids."""

import threading

import numpy as np
import pytest
import torch
from support import digit_rows

from shared_store.cache import Cache
from shared_store.snapshot import OpenSnapshot, open_snapshot, write_snapshot
from shared_store.store import Store
from workers.decode import decode
from workers.images import Batch, ImageSet, Normaliser, evaluation_batches, one_hot, order
from workers.recipe import Augmentation

CLASSES = ("digit_0", "digit_1", "digit_2")
SIDE = 32


class CountingSource:
    """A snapshot that remembers what was read from it."""

    def __init__(self, snapshot: OpenSnapshot) -> None:
        self.snapshot = snapshot
        self.read: list[str] = []

    def image_bytes(self, image_id: str) -> bytes:
        self.read.append(image_id)
        return self.snapshot.image_bytes(image_id)


@pytest.fixture
def source(store: Store, cache: Cache) -> CountingSource:
    rows, kept = digit_rows(per_class=4, classes=3, side=40)
    record = write_snapshot(store, rows, kept.__getitem__)
    return CountingSource(open_snapshot(store, record.snapshot_id, cache))


def image_set(source: CountingSource, threads: int = 0, backwards: bool = False, seed: int = 42) -> ImageSet:
    rows = source.snapshot.rows[::-1] if backwards else source.snapshot.rows
    targets = one_hot([row.label for row in rows], CLASSES)
    return ImageSet(
        source,
        [row.image_id for row in rows],
        targets,
        image_size=SIDE,
        augmentation=Augmentation(),
        seed=seed,
        threads=threads,
    )


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.image_ids == b.image_ids and torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


def test_an_epoch_shows_every_image_once_with_its_own_target(source: CountingSource) -> None:
    batches = list(image_set(source).batches(epoch=0, batch_size=5))
    assert [len(batch.image_ids) for batch in batches] == [5, 5, 2]
    shown = [image_id for batch in batches for image_id in batch.image_ids]
    assert sorted(shown) == sorted(row.image_id for row in source.snapshot.rows)
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.image_ids), 3, SIDE, SIDE)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        labels = [source.snapshot.by_id[image_id].label for image_id in batch.image_ids]
        assert torch.equal(batch.targets, torch.from_numpy(one_hot(labels, CLASSES)))


def test_batches_repeat_and_epochs_and_seeds_differ(source: CountingSource) -> None:
    images = image_set(source)
    first = list(images.batches(0, 4))
    assert same(first, list(images.batches(0, 4)))
    assert not same(first, list(images.batches(1, 4)))
    assert not same(first, list(image_set(source, seed=43).batches(0, 4)))


def test_an_image_is_augmented_anew_in_each_epoch(source: CountingSource) -> None:
    images = image_set(source)

    def shown(epoch: int) -> dict[str, torch.Tensor]:
        return dict(
            pair for batch in images.batches(epoch, 4) for pair in zip(batch.image_ids, batch.images, strict=True)
        )

    first, second = shown(0), shown(1)
    assert not any(torch.equal(first[image_id], second[image_id]) for image_id in images.image_ids)


def test_neither_threads_nor_the_order_of_ids_change_a_pixel(source: CountingSource) -> None:
    plain = list(image_set(source).batches(3, 4))
    assert same(plain, list(image_set(source, threads=3).batches(3, 4)))
    assert same(plain, list(image_set(source, backwards=True).batches(3, 4)))


@pytest.mark.parametrize("threads", [0, 2])
def test_starting_in_mid_epoch_gives_the_tail_and_reads_nothing_before_it(source: CountingSource, threads: int) -> None:
    images = image_set(source, threads)
    whole = list(images.batches(0, 4))
    source.read.clear()
    tail = list(images.batches(0, 4, start=2))
    assert same(tail, whole[2:])
    assert sorted(source.read) == sorted(whole[2].image_ids)


def test_a_start_past_the_end_gives_no_batch(source: CountingSource) -> None:
    assert list(image_set(source).batches(0, 4, start=3)) == []


def test_a_lone_last_image_is_left_out_of_its_epoch(source: CountingSource) -> None:
    images = image_set(source)
    assert images.steps(11) == 1  # 11 and one alone
    assert images.steps(5) == 3
    assert images.steps(12) == 1
    assert images.steps(100) == 1
    assert images.steps(1) == 12
    left_out = [set(images.image_ids) - set(next(images.batches(epoch, 11)).image_ids) for epoch in range(4)]
    assert len(set(map(frozenset, left_out))) > 1


def test_leaving_early_leaves_no_thread_behind(source: CountingSource) -> None:
    batches = image_set(source, threads=2).batches(0, 2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_an_unreadable_image_is_not_swallowed_by_a_thread(source: CountingSource) -> None:
    images = image_set(source, threads=2)
    images.image_ids = (*images.image_ids[:-1], "no such image")
    with pytest.raises(KeyError, match="no such image"):
        list(images.batches(0, 4))


@pytest.mark.parametrize("threads", [0, 2])
def test_evaluation_keeps_the_order_and_adds_nothing(source: CountingSource, threads: int) -> None:
    ids = [row.image_id for row in source.snapshot.rows]
    pairs = list(evaluation_batches(source, ids, SIDE, 5, threads))
    assert [image_id for _, names in pairs for image_id in names] == ids
    images = torch.cat([pixels for pixels, _ in pairs])
    clean = ImageSet(
        source,
        ids,
        np.zeros((12, 3), np.float32),
        image_size=SIDE,
        augmentation=Augmentation(pad_wrap=0, geometry=0, flip=0, colour=0, blur=0),
        seed=1,
    )
    unchanged = {i: p for b in clean.batches(0, 12) for i, p in zip(b.image_ids, b.images, strict=True)}
    assert torch.equal(images, torch.stack([unchanged[image_id] for image_id in ids]))


def test_photos_smaller_and_larger_than_the_input_both_fill_it(source: CountingSource) -> None:
    image_id = source.snapshot.rows[0].image_id
    assert max(decode(source.image_bytes(image_id)).shape[:2]) not in (24, 96)
    for side in (24, 96):
        pixels, _ = next(evaluation_batches(source, [image_id], side, 1))
        assert pixels.shape == (1, 3, side, side)


def test_order_is_a_permutation_that_the_ids_order_does_not_change() -> None:
    ids = [f"image{i}" for i in range(50)]
    places = order(7, 3, ids)
    assert sorted(places) == list(range(50))
    shown = [ids[place] for place in places]
    assert [ids[::-1][place] for place in order(7, 3, ids[::-1])] == shown
    assert order(7, 4, ids) != places
    assert order(8, 3, ids) != places


def test_normaliser_follows_its_formula_and_keeps_channels_last() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = Normaliser(mean, std)(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    wanted = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(out.numpy(), wanted, atol=1e-5)


def test_one_hot_refuses_a_label_that_is_no_class() -> None:
    with pytest.raises(KeyError, match="digit_9"):
        one_hot(["digit_9"], CLASSES)


def test_targets_of_another_length_are_refused(source: CountingSource) -> None:
    with pytest.raises(ValueError, match="12 images"):
        ImageSet(
            source,
            [row.image_id for row in source.snapshot.rows],
            np.zeros((11, 3), np.float32),
            image_size=SIDE,
            augmentation=Augmentation(),
            seed=1,
        )
