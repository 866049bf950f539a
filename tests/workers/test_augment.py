"""Transforms: seeded by the caller alone, independent decisions, and exactly clean when everything is off."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from workers.augment import TrainingTransform, _GaussianNoise, _ShiftScaleRotate
from workers.framing import EvaluationTransform
from workers.images import sample_seed
from workers.recipe import Augmentation

NOTHING = Augmentation(pad_wrap=0, geometry=0, flip=0, vertical_flip=0, colour=0, blur=0)
Pixels = NDArray[np.uint8]


def photo(height: int, width: int, seed: int = 0) -> Pixels:
    """A smooth random photo without symmetry."""
    small = np.random.default_rng(seed).integers(30, 226, (7, 9, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40), (64, 64), (10, 20), (200, 90), (100, 1)])
def test_training_with_everything_off_is_evaluation(height: int, width: int) -> None:
    image = photo(height, width)
    clean = EvaluationTransform(64)(image)
    for seed in range(5):
        np.testing.assert_array_equal(TrainingTransform(64, NOTHING)(image, seed), clean)


def test_evaluation_centres_the_photo_on_black() -> None:
    square = EvaluationTransform(60)(np.full((30, 60, 3), 200, np.uint8))
    assert square.shape == (60, 60, 3)
    assert (square[15:45] == 200).all()
    assert (square[:15] == 0).all()
    assert (square[45:] == 0).all()


def test_wrapped_padding_repeats_the_photo_and_comes_at_its_rate() -> None:
    white = np.full((30, 60, 3), 255, np.uint8)
    transform = TrainingTransform(60, NOTHING.model_copy(update={"pad_wrap": 0.7}))
    wrapped = [bool((transform(white, seed) == 255).all()) for seed in range(200)]
    assert 0.6 < np.mean(wrapped) < 0.8


def test_a_thin_photo_wraps_many_times() -> None:
    image = photo(2, 64)
    square = TrainingTransform(64, NOTHING.model_copy(update={"pad_wrap": 1}))(image, 0)
    np.testing.assert_array_equal(square[31:33], image)
    np.testing.assert_array_equal(square, np.roll(np.tile(image, (32, 1, 1)), 31, axis=0))


def test_one_seed_gives_one_picture_and_others_differ() -> None:
    image = photo(48, 64)
    transform = TrainingTransform(64, Augmentation())
    first = [transform(image, seed) for seed in range(8)]
    again = [TrainingTransform(64, Augmentation())(image, seed) for seed in reversed(range(8))][::-1]
    np.testing.assert_array_equal(first, again)
    assert len({picture.tobytes() for picture in first}) == 8
    assert all(picture.dtype == np.uint8 and picture.shape == (64, 64, 3) for picture in first)


def test_the_two_flips_are_decided_apart() -> None:
    # albumentations' set_random_seed would let one number decide both: two outcomes instead of four.
    image = photo(64, 64)
    transform = TrainingTransform(64, NOTHING.model_copy(update={"flip": 0.5, "vertical_flip": 0.5}))
    outcomes = [transform(image, seed).tobytes() for seed in range(200)]
    wanted = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    shares = [outcomes.count(picture.tobytes()) / 200 for picture in wanted]
    assert sum(shares) == 1
    assert all(0.15 < share < 0.35 for share in shares)


@pytest.mark.parametrize(("name", "rate"), [("geometry", 0.6), ("colour", 0.8), ("blur", 0.8)])
def test_each_change_comes_at_its_rate(name: str, rate: float) -> None:
    image = photo(64, 64)
    transform = TrainingTransform(64, NOTHING.model_copy(update={name: rate}))
    changed = np.mean([not np.array_equal(transform(image, seed), image) for seed in range(200)])
    assert rate - 0.1 < changed < rate + 0.1


def test_shifts_reach_their_limit_and_no_further() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[45:55, 45:55] = 255
    limits = {"geometry": 1, "shift": 0.1, "scale": 0, "rotate_degrees": 0}
    transform = TrainingTransform(100, NOTHING.model_copy(update=limits))
    moved = []
    for seed in range(60):
        rows, columns = np.nonzero(transform(image, seed)[:, :, 0])
        moved.append((rows.mean() - 49.5, columns.mean() - 49.5))
    furthest = np.abs(moved).max(axis=0)
    assert (furthest > 7).all()
    assert (furthest <= 10).all()


def test_scale_and_rotation_reach_their_limits_and_no_further() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[90:110, 50:150] = 255
    limits = {"geometry": 1, "shift": 0, "scale": 0.1, "rotate_degrees": 20}
    transform = TrainingTransform(200, NOTHING.model_copy(update=limits))
    angles, scales = [], []
    for seed in range(80):
        bar = transform(image, seed)[:, :, 0].astype(np.float64)
        scales.append((bar.sum() / image[:, :, 0].sum()) ** 0.5)
        moments = cv2.moments(bar)
        angles.append(np.degrees(0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])))
        assert abs(moments["m10"] / moments["m00"] - 99.5) < 0.5  # about the middle
    assert -20.5 < min(angles) < -16
    assert 16 < max(angles) < 20.5
    assert 0.89 < min(scales) < 0.92
    assert 1.08 < max(scales) < 1.11


def test_the_four_channel_warp_gives_the_three_channel_pixels() -> None:
    image = photo(64, 64)
    matrix = cv2.getRotationMatrix2D((31.5, 31.5), 13, 1.05)
    plain = cv2.warpAffine(image, matrix, (64, 64), borderMode=cv2.BORDER_REFLECT_101)
    np.testing.assert_array_equal(_ShiftScaleRotate(0, 0, 0).apply(image, matrix), plain)


def test_noise_is_normal_with_the_deviation_asked_for() -> None:
    grey = np.full((101, 103, 3), 128, np.uint8)
    noise = _GaussianNoise((6, 6), p=1)
    noise.set_random_seed(1)
    levels = noise(image=grey)["image"].astype(float) - 128
    assert abs(levels.mean()) < 0.1
    assert 5.8 < levels.std() < 6.2
    assert abs((np.abs(levels) <= 6).mean() - 0.72) < 0.02  # P(|x| <= 6.5) at deviation 6
    assert abs(np.corrcoef(levels[:, :, 0].ravel(), levels[:, :, 1].ravel())[0, 1]) < 0.05


def test_noise_saturates_at_white() -> None:
    noise = _GaussianNoise((6, 6), p=1)
    noise.set_random_seed(1)
    assert noise(image=np.full((32, 32, 3), 255, np.uint8))["image"].min() > 220


def test_threads_share_a_transform_safely() -> None:
    image = photo(48, 64)
    transform = TrainingTransform(64, Augmentation())
    alone = [transform(image, seed) for seed in range(64)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: transform(image, seed), range(64)))
    np.testing.assert_array_equal(alone, together)


class Augmented(Dataset[tuple[int, Pixels]]):
    """Ten photos of one epoch, for a real DataLoader whose workers are spawned."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 10

    def __getitem__(self, place: int) -> tuple[int, Pixels]:
        transform = TrainingTransform(32, Augmentation())
        return place, transform(photo(24, 32, place), sample_seed(42, self.epoch, f"image{place}"))


def loaded(epoch: int, workers: int) -> dict[int, bytes]:
    context = "spawn" if workers else None
    loader = DataLoader(Augmented(epoch), batch_size=None, num_workers=workers, multiprocessing_context=context)
    return {int(place): np.asarray(pixels).tobytes() for place, pixels in loader}


def test_data_loader_workers_change_nothing() -> None:
    # albumentations alone gives every DataLoader worker the same stream, and the same again in each epoch.
    alone = loaded(epoch=0, workers=0)
    assert loaded(epoch=0, workers=2) == alone
    assert loaded(epoch=0, workers=0) == alone
    later = loaded(epoch=1, workers=0)
    assert all(later[place] != alone[place] for place in alone)
