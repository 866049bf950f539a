"""A fold on a card trains in every precision, is as repeatable there as on a CPU, and moves between the two."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from card_support import KEEPS, PRECISIONS, Site, begin, distance, predicted, recipe_in, run_elsewhere, weights
from fold_support import StoppingReporter
from support import RecordingReporter

from shared_store.commits import last_commit, read_result
from shared_store.records import Result
from workers.fold_data import open_fold
from workers.loop import Learner, compute_dtype
from workers.model import initial_model
from workers.recipe import Recipe
from workers.state_file import pack, unpack
from workers.stopped import StoppedError
from workers.tasks import task_id, to_json

log = logging.getLogger(__name__)
REPEATED = ("model", "held_out", "selection")
MID_EPOCH = 4
AS_ON_A_CPU = {"float32": 0.005, "float16": 0.2, "bfloat16": 0.2, "auto": 0.2}
"""How far the weights may be from those of a CPU, as a share of their size."""


def comparable(precision: str, keep: str) -> Recipe:
    """A recipe without dropout, which draws on a card what it never draws on a CPU."""
    return recipe_in(precision, keep, dropout=0.0)


def blobs(result: Result) -> list[str]:
    return [result.blobs[name] for name in REPEATED]


def stopped_at(site: Site, device: str, step: int) -> None:
    with pytest.raises(StoppedError):
        site.train(device, reporter=StoppingReporter(step))
    assert last_commit(site.store, task_id(site.task)) is not None


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory, card: str) -> dict[tuple[str, str], tuple[Site, Result]]:
    """Folds that nothing interrupts, by precision and by which weights they keep."""
    found = {}
    for precision, keep in itertools.product(PRECISIONS, KEEPS):
        site = begin(tmp_path_factory.mktemp(f"{precision}-{keep}"), recipe_in(precision, keep))
        found[precision, keep] = (site, site.train(card))
    return found


@pytest.fixture(scope="module")
def on_a_cpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Site, Result]]:
    """Folds in float32 on a CPU, by which weights they keep."""
    sites = {keep: begin(tmp_path_factory.mktemp(keep), comparable("float32", keep)) for keep in KEEPS}
    return {keep: (site, site.train("cpu")) for keep, site in sites.items()}


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_fold_becomes_on_the_card_what_it_becomes_on_a_cpu(
    tmp_path: Path, card: str, on_a_cpu: dict[str, tuple[Site, Result]], precision: str, keep: str
) -> None:
    site, (other_site, other) = begin(tmp_path, comparable(precision, keep)), on_a_cpu[keep]
    result = site.train(card)
    assert result.numbers["epochs"] == other.numbers["epochs"]
    assert np.isfinite(predicted(site.store, result).logits).all()
    apart = distance(weights(site.store, result), weights(other_site.store, other))
    log.info(f"{precision} {keep}: weights {apart:.2e} from a CPU's")
    assert 0 < apart < AS_ON_A_CPU[precision]


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_stopped_fold_ends_on_the_card_with_the_bytes_of_one_left_alone(
    tmp_path: Path, card: str, left_alone: dict[tuple[str, str], tuple[Site, Result]], precision: str, keep: str
) -> None:
    site = begin(tmp_path, recipe_in(precision, keep))
    stopped_at(site, card, MID_EPOCH)
    reporter = RecordingReporter()
    again = site.train(card, attempt=2, reporter=reporter)
    assert "resumes from commit" in reporter.reports[0].note
    undisturbed_site, undisturbed = left_alone[precision, keep]
    apart = distance(weights(site.store, again), weights(undisturbed_site.store, undisturbed))
    log.info(f"{precision} {keep}: weights {apart:.2e} from those of the undisturbed fold")
    assert blobs(again) == blobs(undisturbed)


def test_another_process_ends_a_stopped_fold_with_the_same_bytes(
    tmp_path: Path, card: str, left_alone: dict[tuple[str, str], tuple[Site, Result]]
) -> None:
    site = begin(tmp_path, recipe_in("float16"))
    stopped_at(site, card, MID_EPOCH)
    body = (to_json(site.task), site.store.url, str(site.cache.folder), card)
    process = multiprocessing.get_context("spawn").Process(target=run_elsewhere, args=body)
    process.start()
    process.join(200)
    assert process.exitcode == 0
    result = read_result(site.store, task_id(site.task))
    assert result is not None and blobs(result) == blobs(left_alone["float16", "ema"][1])


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("first", ["cpu", "card"])
def test_a_fold_moves_between_a_cpu_and_the_card(
    tmp_path: Path, card: str, on_a_cpu: dict[str, tuple[Site, Result]], keep: str, first: str
) -> None:
    """`auto`: in float32 on the one, in 16 bits on the other where the card has them."""
    devices = ("cpu", card) if first == "cpu" else (card, "cpu")
    site = begin(tmp_path, comparable("auto", keep))
    stopped_at(site, devices[0], MID_EPOCH)
    reporter = RecordingReporter()
    result = site.train(devices[1], attempt=2, reporter=reporter)
    assert "resumes from commit" in reporter.reports[0].note
    other_site, other = on_a_cpu[keep]
    apart = distance(weights(site.store, result), weights(other_site.store, other))
    log.info(f"{first} first, {keep}: weights {apart:.2e} from a CPU's")
    assert apart < AS_ON_A_CPU["auto"]


def test_auto_computes_in_16_bits_on_cards_that_gain_by_it(card: str) -> None:
    gains = torch.cuda.get_device_capability(card) >= (7, 0)
    assert (compute_dtype(recipe_in("auto"), torch.device(card)) == torch.float32) is not gains
    assert compute_dtype(recipe_in("auto"), torch.device("cpu")) == torch.float32


class Trained:
    """A learner of the small fold that has taken some steps."""

    def __init__(self, site: Site, recipe: Recipe, device: str) -> None:
        self.images = open_fold(site.task, site.work(device), recipe, 0).training
        self.learner = Learner(recipe, initial_model(recipe, len(site.task.classes), 0), device, ((0,),))
        self.done = 0

    def steps(self, until: int) -> None:
        walk: Iterator[int] = self.learner.epoch(self.images, 1, self.done)
        while self.done < until:
            self.done = next(walk)
        self.learner.look()

    def goes_on_as(self, other: Trained) -> None:
        """`other` becomes what this one is, by way of a file's bytes."""
        state, _ = unpack(pack(self.learner.state(), {}))
        other.learner.load(state)
        other.done = self.done


def kept(learner: Learner) -> bytes:
    """What a learner hands on whatever it computes in: all but its loss scale."""
    state: dict[str, Any] = learner.state()
    return pack({name: value for name, value in state.items() if name != "scaler"}, {})


@pytest.mark.parametrize("keep", KEEPS)
def test_a_state_in_float32_goes_on_in_float16_with_a_loss_scale_and_back_again(
    tmp_path: Path, card: str, keep: str
) -> None:
    site = begin(tmp_path, recipe_in("float32", keep))
    on_cpu = Trained(site, recipe_in("float32", keep), "cpu")
    on_card = Trained(site, recipe_in("float16", keep), card)
    back = Trained(site, recipe_in("float32", keep), "cpu")
    on_cpu.steps(1)
    assert on_cpu.learner.state()["scaler"] == {}
    on_cpu.goes_on_as(on_card)
    assert kept(on_cpu.learner) == kept(on_card.learner)
    on_card.steps(2)
    assert on_card.learner.state()["scaler"]["scale"] > 0
    on_card.goes_on_as(back)
    assert kept(on_card.learner) == kept(back.learner)
    back.steps(3)
    back.learner.check()
    assert {value.device.type for value in on_card.learner.model.state_dict().values()} == {"cuda"}


@pytest.mark.parametrize("keep", KEEPS)
def test_a_step_whose_scaled_gradients_overflow_is_left_out_and_the_scale_falls(
    tmp_path: Path, card: str, keep: str
) -> None:
    site = begin(tmp_path, recipe_in("float16", keep))
    trained = Trained(site, recipe_in("float16", keep), card)
    trained.steps(1)
    state = trained.learner.state()
    trained.learner.load({**state, "scaler": {**state["scaler"], "scale": 1e30}})
    before = [parameter.detach().clone() for parameter in trained.learner.model.parameters()]
    trained.steps(2)
    assert trained.learner.state()["scaler"]["scale"] < 1e30
    for old, new in zip(before, trained.learner.model.parameters(), strict=True):
        assert torch.equal(old, new)
    trained.learner.check()
