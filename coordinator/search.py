"""The search over ensembles: one SearchTask, run on the driver as a Ray Tune search. The only user of Tune.

`run_search(task, store)` needs a Ray that is already initialised, and no free CPU: the trials ask for a sliver of the
driver's own node and of nothing else, so slots may hold every core. They run beside the driver, where this code surely
is. It works from any thread.

A trial scores one block of ensembles, so that a trial's own cost is paid a few times and not once an ensemble. The
members' logits are put into the object store once. Failed trials do not raise in Tune: they are looked for, and their
error is raised. Nothing of Tune's stays on disk.

The Result: blobs `leaderboard` (CSV) and `search` (canonical JSON: `coordinator.leaderboard.as_json`, with the members'
task ids); texts `winner` (JSON list of task ids) and `verdict`; numbers `score`, `score_low`, `score_high`, `subsets`,
`selection_images`. Equal inputs give equal bytes but for the measured milliseconds and memory.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import ray

from coordinator import leaderboard
from coordinator.config import EnsembleSection
from coordinator.ensemble import Budget, Ensemble, Floats, Members, Pool, as_tuples, candidates, greedy, ranked, scores
from shared_store.commits import read_result
from shared_store.errors import UserError
from shared_store.records import Result, canonical_json
from shared_store.store import Store
from shared_store.tables import get_predictions
from workers.tasks import SearchTask, spec_hash, task_id

_HASH_LENGTH = 17  # "-" and 16 hex digits, at the end of a task id
_SERIAL_VALUES = 10**8  # ensembles x images that one trial actor scores sooner than a second one starts


def run_search(task: SearchTask, store: Store, attempt: int = 1, nonce: str = "") -> Result:
    """Choose the best ensemble of `task.members` on the selection part; the caller keeps the Result.

    UserError without labelled selection photos, or where no model fits the budget.
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
    """The members' logits on the labelled selection photos, and their measured costs."""
    image_ids, labels = _selection(store.get_blob(task.folds).decode(), task.classes)
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
    return Pool(_names(task.members), np.stack(logits), labels, multiply_adds, ms_per_image, memory_mb)


def _selection(fold_table: str, classes: Sequence[str]) -> tuple[list[str], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Ids and class numbers of the labelled selection photos, in the fold table's order."""
    number = {name: place for place, name in enumerate(classes)}
    rows = [row for row in csv.DictReader(io.StringIO(fold_table)) if row["part"] == "selection" and row["label"]]
    strange = sorted({row["label"] for row in rows} - set(number))
    if strange:
        raise UserError(
            f"selection photos of classes that no model was trained on: {', '.join(strange)}",
            where="data.selection",
            mend=f"use the classes of the train photos: {', '.join(classes)}",
        )
    return [row["image_id"] for row in rows], np.array([number[row["label"]] for row in rows], dtype=np.int64)


def _names(members: Sequence[str]) -> tuple[str, ...]:
    """`teacher-fold0-1f3a9c0e5d7b2468` -> `teacher/fold0`; whole ids where two members share a name."""
    names = tuple(member[:-_HASH_LENGTH].replace("-", "/", 1) for member in members)
    return names if len(set(names)) == len(names) else tuple(members)


def _scored(pool: Pool, exact: Sequence[Members], metric: str) -> tuple[list[Ensemble], Floats]:
    """Every ensemble with its score, through Tune."""
    cores = os.cpu_count() or 1
    heavy = sum(len(part) for part in exact) * len(pool.labels) > _SERIAL_VALUES
    pieces = 4 * cores if heavy else 1
    blocks = [block for part in exact for block in np.array_split(part, min(pieces, len(part)))]
    found = tune_blocks(pool, blocks, metric, at_once=cores if heavy else 1)
    return [ensemble for block in blocks for ensemble in as_tuples(block)], np.concatenate(found)


def tune_blocks(pool: Pool, blocks: Sequence[Members], metric: str, at_once: int) -> list[Floats]:
    """The scores of each block, one Tune trial a block, `at_once` of them beside each other."""
    assert ray.is_initialized(), "the search runs inside a session, which has initialised Ray"
    with _silent(), tempfile.TemporaryDirectory(prefix="foldfleet-search-") as folder:
        from ray import tune

        trainable = tune.with_parameters(_trial, logits=pool.logits, labels=pool.labels, blocks=blocks, metric=metric)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0, _own_node(): 0.001}),
            param_space={"block": tune.grid_search(list(range(len(blocks))))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=at_once),
            run_config=tune.RunConfig(name="ensembles", storage_path=folder, verbose=0),
        )
        results = tuner.fit()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} of {len(blocks)} search trials failed") from results.errors[0]
    by_block = {result.metrics["block"]: np.array(result.metrics["scores"], dtype=np.float64) for result in results}
    assert sorted(by_block) == list(range(len(blocks))), f"Tune gave back the blocks {sorted(by_block)}"
    return [by_block[block] for block in range(len(blocks))]


def _trial(
    config: dict[str, int], *, logits: np.ndarray, labels: np.ndarray, blocks: Sequence[Members], metric: str
) -> None:
    from ray import tune

    found = scores(logits, labels, blocks[config["block"]], metric)
    tune.report({"block": config["block"], "scores": found.tolist()})


def _own_node() -> str:
    """The resource that only the driver's node offers."""
    own = ray.get_runtime_context().get_node_id()
    resources = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == own)
    return next(str(name) for name in resources if name.startswith("node:") and name != "node:__internal_head__")


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
