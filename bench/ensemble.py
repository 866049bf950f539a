"""The exhaustive search over ensembles, beside a loop over scikit-learn's metric: ratios, in one run, interleaved.

    python -m bench.ensemble [--rounds 5] [--no-tune] [--large]

First every ensemble of at most 3 of 10 models on 1,710 photos, then with Tune and the whole leaderboard. Then very many
ensembles on one core, exactly, by bounds: 40 models on 4,000 photos, or with `--large` 200 models on 20,000 photos
(1,333,500 ensembles, minutes). scikit-learn's time for those is EXTRAPOLATED from a few ensembles, and says so.

The models are made up: a shared signal of varying difficulty, noise that they share, noise of their own, and unequal
skill. Seconds are this machine's: of CPU where one core works, of the clock with Tune.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from coordinator import leaderboard
from coordinator.ensemble import Budget, Members, Pool, as_tuples, candidates, scores
from coordinator.shortlist import best_of, look_ahead

CLASSES = 4


def made_up_pool(models: int, images: int, seed: int = 0) -> Pool:
    """Models whose single mAP is about .88 +- .04."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, images)
    signal = 3 * np.eye(CLASSES)[labels] * random.normal(1, 0.5, (images, 1))
    shared = random.normal(0, 1, (images, CLASSES))
    logits = np.empty((models, images, CLASSES), dtype=np.float32)
    for model in range(models):
        skill, loudness = 1 + 0.15 * random.normal(), 1.5 * (1 + 0.2 * random.normal())
        logits[model] = loudness * (skill * signal + shared + random.normal(0, 1, (images, CLASSES)))
    names = tuple(f"{'teacher' if m < models // 2 else 'student'}/fold{m}" for m in range(models))
    return Pool(names, logits, labels, *(np.full(models, cost) for cost in (1e9, 8.0, 400.0)))


def by_scikit_learn(pool: Pool, ensembles: Members) -> list[float]:
    """The loop that one would write. Its AP is not interpolated, so its scores lie a little below VOC's."""
    truth = [pool.labels == c for c in range(CLASSES)]
    found = []
    for row in ensembles:
        mean = pool.logits[row].mean(axis=0)
        powers = np.exp(mean - mean.max(axis=1, keepdims=True))
        chances = powers / powers.sum(axis=1, keepdims=True)
        found.append(float(np.mean([average_precision_score(truth[c], chances[:, c]) for c in range(CLASSES)])))
    return found


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def small(rounds: int, tune: bool) -> None:
    pool = made_up_pool(10, 1710)
    parts = candidates(pool, 3, Budget())
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(cpu_seconds(lambda: [by_scikit_learn(pool, part) for part in parts]))
        ours.append(cpu_seconds(lambda: [scores(pool.logits, pool.labels, part, "mean_ap") for part in parts]))
    loop, kernel = statistics.median(theirs), statistics.median(ours)
    print("175 ensembles of 10 models, 1,710 photos, 4 classes")
    print(f"  scikit-learn loop {loop:7.3f} s   1.00")
    print(f"  ours, exact       {kernel:7.3f} s   {kernel / loop:.2f}   (target: at most 0.2 s)")
    if tune:
        with_tune(pool, parts, rounds)


def with_tune(pool: Pool, parts: list[Members], rounds: int) -> None:
    from coordinator.search import tune_blocks

    question = leaderboard.Question("mean_ap", Budget(), resamples=1000, seed=42)
    with local_ray():
        totals, searches = [], []
        for _ in range(rounds):
            began = time.monotonic()
            ensembles, values = tune_blocks(pool, parts, "mean_ap", at_once=1)
            searches.append(time.monotonic() - began)
            leaderboard.find(pool, question, ensembles, values, len(ensembles))
            totals.append(time.monotonic() - began)
    search, total = statistics.median(searches), statistics.median(totals)
    print(f"  through Tune      {search:7.3f} s by the clock")
    print(f"  and 1,000 resamples of the leaderboard: {total:.3f} s by the clock in all   (target: at most 5 s)")


@contextlib.contextmanager
def local_ray() -> Iterator[None]:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # of this process alone
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def many(models: int, images: int) -> None:
    pool = made_up_pool(models, images)
    parts = candidates(pool, 3, Budget())
    total = sum(len(part) for part in parts)
    places = leaderboard.LEADERBOARD_ROWS
    found: dict[str, Any] = {}

    def search() -> None:
        outlook = look_ahead(pool.logits, pool.labels, parts, places)
        results = [best_of(pool.logits, pool.labels, part, outlook, places) for part in parts]
        rows = [row for part, (kept, _) in zip(parts, results, strict=True) for row in as_tuples(part[kept])]
        values = np.concatenate([values for _, values in results])
        found.update(outlook=outlook, rows=rows, values=values)

    ours = cpu_seconds(search)
    few = parts[-1][:: max(1, len(parts[-1]) // 5)]
    each = cpu_seconds(lambda: by_scikit_learn(pool, few)) / len(few)
    exact = cpu_seconds(lambda: scores(pool.logits, pool.labels, few, "mean_ap")) / len(few)
    best = int(np.argmax(found["values"]))
    looked_at = ", ".join(f"{len(pairs.images):,}" for pairs in found["outlook"].passes)
    print(f"{total:,} ensembles of {models} models, {images:,} photos: the exact best {places}, on one core")
    print(f"  scikit-learn loop {each * total:9.1f} s   1.0000   EXTRAPOLATED from {len(few)} ensembles")
    print(f"  ours, all exact   {exact * total:9.1f} s   {exact / each:.4f}   EXTRAPOLATED from {len(few)} ensembles")
    print(f"  ours, by bounds   {ours:9.1f} s   {ours / each / total:.4f}   measured; {ours / total * 1e6:.0f} us each")
    print(f"  passes over {looked_at} of {CLASSES * images:,} pairs; {len(found['rows']):,} left; ", end="")
    print(f"winner {found['rows'][best]} {found['values'][best]:.6f}")
    check(pool, parts, found["values"][best])


def check(pool: Pool, parts: list[Members], best: float) -> None:
    """Score a random sample of all ensembles exactly: none may beat the winner."""
    random = np.random.default_rng(1)
    sample = parts[-1][random.choice(len(parts[-1]), min(300, len(parts[-1])), replace=False)]
    values: NDArray[np.float64] = scores(pool.logits, pool.labels, sample, "mean_ap")
    assert values.max() <= best, f"{values.max()} beats the winner's {best}"
    print(f"  best of {len(sample)} drawn at random: {values.max():.6f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-tune", action="store_true")
    parser.add_argument("--large", action="store_true", help="200 models x 20,000 photos")
    arguments = parser.parse_args()
    small(arguments.rounds, not arguments.no_tune)
    many(*((200, 20_000) if arguments.large else (40, 4_000)))
