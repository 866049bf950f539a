"""The search over ensembles: one SearchTask, run on the driver as a Ray Tune search. The only user of Tune.

`run_search(task, store)` needs a Ray that is already initialised, and no free CPU: the trials ask for a sliver of the
driver's own node and of nothing else, so slots may hold every core. They run beside the driver, where this code surely
is. It works from any thread.

A trial scores one block of ensembles, so that a trial's own cost is paid a few times and not once an ensemble. The
members' logits are put into the object store once. Failed trials do not raise in Tune: they are looked for, and their
error is raised. Nothing of Tune's stays on disk. Very many ensembles are searched by bounds
(`coordinator.shortlist`), and only those in the leaderboard's places are kept.

The Result: blobs `leaderboard` (CSV) and `search` (canonical JSON: `coordinator.leaderboard.as_json`, with the members'
task ids); texts `winner` (JSON list of task ids) and `verdict`; numbers `score`, `score_low`, `score_high`, `subsets`,
`selection_images`. Equal inputs give equal bytes but for the measured milliseconds and memory.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from coordinator import leaderboard
from coordinator.config import EnsembleSection
from coordinator.ensemble import (
    Budget,
    Ensemble,
    Floats,
    Members,
    Pool,
    as_tuples,
    candidates,
    goodness,
    greedy,
    ranked,
    scores,
)
from coordinator.screen import Integers
from coordinator.shortlist import Outlook, best_of, floor_of, look_ahead
from coordinator.variants import member_names
from shared_store.commits import read_result
from shared_store.errors import UserError
from shared_store.folds_table import FoldTable, read_folds
from shared_store.head import HEAD_RESOURCE
from shared_store.records import Result, canonical_json
from shared_store.store import Store
from shared_store.tables import get_predictions
from workers.tasks import SearchTask, spec_hash, task_id

HEAVY_VALUES = 10**7  # ensembles x images: below, one trial actor scores them sooner than a second one starts


def run_search(task: SearchTask, store: Store, attempt: int = 1, nonce: str = "") -> Result:
    """Choose the best ensemble of `task.members` on the selection part; the caller keeps the Result.

    UserError without selection photos, or where no model fits the budget.
    """
    section = EnsembleSection.model_validate(dict(task.ensemble))
    pool = load_pool(task, store)
    budget = Budget(section.max_ms_per_image, section.max_memory_gb)
    question = leaderboard.Question(section.metric, budget, section.bootstrap, section.seed)
    exact = candidates(pool, section.max_members, budget)
    ensembles, values = _scored(pool, exact, section.metric)
    best = ensembles[ranked(pool, ensembles, values, section.metric)[0]]
    steps = greedy(pool, best, section.max_members, section.metric, budget)
    ensembles += [ensemble for ensemble, _ in steps]
    values = np.concatenate([values, [value for _, value in steps]])
    considered = sum(len(part) for part in exact) + len(steps)
    findings = leaderboard.find(pool, question, ensembles, values, considered)
    report = {**leaderboard.as_json(pool, question, findings), "member_ids": task.members}
    winner = findings.winner
    return Result(
        task=task_id(task),
        spec=spec_hash(task),
        attempt=attempt,
        nonce=nonce,
        blobs={
            "leaderboard": store.put_blob(leaderboard.as_csv(pool, findings)),
            "search": store.put_blob(canonical_json(report)),
        },
        numbers={
            "score": winner.score,
            "score_low": winner.low,
            "score_high": winner.high,
            "subsets": considered,
            "selection_images": len(pool.labels),
        },
        texts={
            "winner": json.dumps([task.members[member] for member in winner.ensemble]),
            "verdict": report["verdict"],
        },
    )


def load_pool(task: SearchTask, store: Store) -> Pool:
    """The members' logits on the selection photos, and their measured costs."""
    image_ids, labels = _selection(read_folds(store, task.folds), task.classes)
    if not image_ids:
        raise UserError(
            "there are no selection photos to choose an ensemble on",
            where="the fold table's rows of part `selection`",
            mend="raise folds.selection_fraction, or give labelled photos with data.selection",
        )
    logits, costs = [], []
    for member in task.members:
        result = read_result(store, member)
        assert result is not None, f"{task.name} ran before its member {member} had a result"
        predictions = get_predictions(store, result.blobs["selection"])
        assert predictions.classes == task.classes, f"{member} predicts {predictions.classes}, not {task.classes}"
        logits.append(predictions.rows(image_ids))
        costs.append([result.numbers[name] for name in ("multiply_adds", "ms_per_image", "memory_mb")])
    multiply_adds, ms_per_image, memory_mb = np.array(costs, dtype=np.float64).T
    return Pool(member_names(task.members), np.stack(logits), labels, multiply_adds, ms_per_image, memory_mb)


def _selection(table: FoldTable, classes: Sequence[str]) -> tuple[tuple[str, ...], Integers]:
    """Ids and class numbers of the selection photos, in the fold table's order."""
    number = {name: place for place, name in enumerate(classes)}
    image_ids = table.ids("selection")
    labels = table.labels(image_ids)
    strange = sorted(set(labels) - set(number))
    if strange:
        raise UserError(
            f"selection photos of classes that no model was trained on: {', '.join(strange)}",
            where="data.selection",
            mend=f"use the classes of the train photos: {', '.join(classes)}",
        )
    return image_ids, np.array([number[label] for label in labels], dtype=np.int64)


def _scored(pool: Pool, parts: Sequence[Members], metric: str) -> tuple[list[Ensemble], Floats]:
    """Every ensemble with its score; of very many, those in the leaderboard's places or tied with the last of them."""
    if sum(len(part) for part in parts) * len(pool.labels) < HEAVY_VALUES:
        return tune_blocks(pool, parts, metric, at_once=1)
    cores, places = os.cpu_count() or 1, leaderboard.LEADERBOARD_ROWS
    blocks = [block for part in parts for block in np.array_split(part, min(4 * cores, max(1, len(part))))]
    outlook = look_ahead(pool.logits, pool.labels, parts, places) if metric == "mean_ap" else None
    ensembles, values = tune_blocks(pool, blocks, metric, at_once=cores, keep=Keep(places, outlook))
    better = goodness(values, metric)
    kept = np.flatnonzero(better >= floor_of(better, places))
    return [ensembles[place] for place in kept], values[kept]


@dataclass(frozen=True)
class Keep:
    """Keep only the best `places`, and what ties with the last of them; with an outlook, by bounds first (mean AP)."""

    places: int
    outlook: Outlook | None = None


def tune_blocks(
    pool: Pool, blocks: Sequence[Members], metric: str, *, at_once: int, keep: Keep | None = None
) -> tuple[list[Ensemble], Floats]:
    """The ensembles of all blocks in order, with their scores: one Tune trial a block, `at_once` side by side."""
    assert ray.is_initialized(), "the search runs inside a session, which has initialised Ray"
    shared = {"logits": pool.logits, "labels": pool.labels, "blocks": blocks, "metric": metric, "keep": keep}
    with _silent(), tempfile.TemporaryDirectory(prefix="foldfleet-search-") as folder:
        from ray import tune

        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, **shared), {"cpu": 0, _own_node(): 0.001}),
            param_space={"block": tune.grid_search(list(range(len(blocks))))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=at_once),
            run_config=tune.RunConfig(name="ensembles", storage_path=folder, verbose=0),
        )
        results = tuner.fit()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} of {len(blocks)} search trials failed") from results.errors[0]
    by_block = {result.metrics["block"]: result.metrics for result in results}
    assert sorted(by_block) == list(range(len(blocks))), f"Tune gave back the blocks {sorted(by_block)}"
    ensembles, values = [], []
    for number, block in enumerate(blocks):
        ensembles += as_tuples(block[np.array(by_block[number]["kept"], dtype=np.int64)])
        values += by_block[number]["scores"]
    return ensembles, np.array(values)


def _trial(
    config: dict[str, int],
    *,
    logits: NDArray[np.float32],
    labels: Integers,
    blocks: Sequence[Members],
    metric: str,
    keep: Keep | None,
) -> None:
    from ray import tune

    block = blocks[config["block"]]
    if keep is not None and keep.outlook is not None:
        kept, values = best_of(logits, labels, block, keep.outlook, keep.places)
    else:
        values = scores(logits, labels, block, metric)
        better = goodness(values, metric)
        kept = np.flatnonzero(better >= (-np.inf if keep is None else floor_of(better, keep.places)))
        values = values[kept]
    tune.report({"block": config["block"], "kept": kept.tolist(), "scores": values.tolist()})


def _own_node() -> str:
    """The resource that only the driver's node offers."""
    own = ray.get_runtime_context().get_node_id()
    resources = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == own)
    return next(str(name) for name in resources if name.startswith("node:") and name != HEAD_RESOURCE)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Tune without its tables, its result files, its change of folder and its hold on Ctrl-C."""
    settings = {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    before = {name: os.environ.get(name) for name in settings}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(settings)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
