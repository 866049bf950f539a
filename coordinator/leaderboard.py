"""What a search leaves for people: the leaderboard, the comparison with simpler choices, the verdict in words. Pure.

The leaderboard holds the best `LEADERBOARD_ROWS` ensembles and the baselines: the best single model and teacher, the
plain means of all teachers, of all students, of all, and of each of several recipes' last round. A mean of more members
than allowed may stand above the winner. Every row has its bootstrap interval. The winner is compared with each baseline
on the same resamples; a baseline is *as good* where the interval of the difference reaches down to zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordinator import compare
from coordinator.ensemble import (
    LOWER_IS_BETTER,
    Budget,
    Ensemble,
    Floats,
    Pool,
    as_tuples,
    goodness,
    probabilities,
    ranked,
    scores,
    subsets,
    within_budget,
)
from coordinator.variants import recipe_of

LEADERBOARD_ROWS = 50
FEW_IMAGES = 500  # below this, the verdict warns that a choice among many is partly luck
COLUMNS = "members,size,score,score_low,score_high,ms_per_image,memory_mb"
METRIC_WORDS = {"mean_ap": "mAP", "top_class_ap": "top-class mAP", "accuracy": "accuracy", "log_loss": "log loss"}


@dataclass(frozen=True)
class Question:
    """What was asked of the search."""

    metric: str
    budget: Budget
    resamples: int
    seed: int


@dataclass(frozen=True)
class Row:
    """One ensemble with its score and that score's interval."""

    ensemble: Ensemble
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The winner against one baseline. A positive difference is in the winner's favour, whatever the metric."""

    label: str
    row: Row
    difference: float
    low: float
    high: float
    affordable: bool  # within the budget, so that it could have been chosen

    @property
    def as_good(self) -> bool:
        return self.low <= 0


@dataclass(frozen=True)
class Findings:
    """A search's outcome: `rows` from best to worst with the baselines among them, `ensembles[0]` the winner."""

    winner: Row
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    ensembles: tuple[Ensemble, ...]  # all that were scored exactly, best first
    values: Floats
    considered: int  # ensembles within the budget, those ruled out by bounds included


def find(pool: Pool, question: Question, ensembles: Sequence[Ensemble], values: Floats, considered: int) -> Findings:
    """Rank what was scored, and compare the best with the baselines."""
    metric = question.metric
    order = ranked(pool, ensembles, values, metric)
    ensembles, values = [ensembles[place] for place in order], values[order]
    named = _baselines(pool, question)
    shown = list(dict.fromkeys((*ensembles[:LEADERBOARD_ROWS], *named.values())))
    chances = [probabilities(pool.logits, np.array([ensemble], dtype=np.int32))[0] for ensemble in shown]
    exact = np.array([_score(pool, ensemble, metric) for ensemble in shown])
    resamples = compare.resampled_scores(chances, pool.labels, metric, question.resamples, question.seed)
    rows = [
        Row(ensemble, score, *compare.interval(drawn))
        for ensemble, score, drawn in zip(shown, exact.tolist(), resamples, strict=True)
    ]
    better, differences = goodness(exact, metric), goodness(resamples[0] - resamples, metric)
    comparisons = tuple(
        Comparison(
            label,
            rows[place],
            float(better[0] - better[place]),
            *compare.interval(differences[place]),
            len(within_budget(pool, np.array([ensemble], dtype=np.int32), question.budget)) == 1,
        )
        for label, ensemble in named.items()
        if (place := shown.index(ensemble)) != 0
    )
    best_first = tuple(rows[place] for place in ranked(pool, shown, exact, metric))
    return Findings(rows[0], best_first, comparisons, tuple(ensembles), values, considered)


def as_csv(pool: Pool, findings: Findings) -> bytes:
    """leaderboard.csv, best first (for log loss the lowest). Times and memory are sums over the members."""
    lines = [COLUMNS]
    for row in findings.rows:
        members = list(row.ensemble)
        cost = f"{pool.ms_per_image[members].sum():.3f},{pool.memory_mb[members].sum():.1f}"
        interval = f"{row.score:.6f},{row.low:.6f},{row.high:.6f}"
        lines.append(f"{_members(pool, row.ensemble)},{len(members)},{interval},{cost}")
    return ("\n".join(lines) + "\n").encode()


def as_json(pool: Pool, question: Question, findings: Findings) -> dict[str, Any]:
    """Everything a report needs, as JSON values. Ensembles are lists of places in `members`, best first."""
    singles = scores(pool.logits, pool.labels, subsets(len(pool.names), 1), question.metric)
    members = zip(pool.names, singles, pool.multiply_adds, pool.ms_per_image, pool.memory_mb, strict=True)
    return {
        "metric": question.metric,
        "lower_is_better": question.metric in LOWER_IS_BETTER,
        "images": len(pool.labels),
        "budgets": {
            "max_ms_per_image": question.budget.max_ms_per_image,
            "max_memory_gb": question.budget.max_memory_gb,
        },
        "bootstrap": question.resamples,
        "seed": question.seed,
        "members": [
            {"name": name, "score": _round(score), "multiply_adds": adds, "ms_per_image": ms, "memory_mb": memory}
            for name, score, adds, ms, memory in members
        ],
        "considered": findings.considered,
        "ensembles": findings.ensembles,
        "scores": [_round(value) for value in findings.values],
        "winner": _row(findings.winner),
        "leaderboard": [_row(row) for row in findings.rows],
        "comparisons": [
            {
                "label": found.label,
                **_row(found.row),
                "difference": _round(found.difference),
                "difference_low": _round(found.low),
                "difference_high": _round(found.high),
                "as_good": found.as_good,
                "affordable": found.affordable,
            }
            for found in findings.comparisons
        ],
        "verdict": verdict(pool, question, findings),
    }


def verdict(pool: Pool, question: Question, findings: Findings) -> str:
    """What was chosen, how sure that is, and which simpler choice is as good, in sentences."""
    winner, images = findings.winner, len(pool.labels)
    chosen = "the chosen model" if len(winner.ensemble) == 1 else f"the chosen {len(winner.ensemble)}"
    interval = f"95 % interval {winner.low:.4f} to {winner.high:.4f}"
    if winner.low == winner.high:  # as where all is right: that says how few they are, and not how sure it is
        interval = "no interval, for all resamples of so few photos score the same"
    sentences = [
        f"Chosen: {_members(pool, winner.ensemble)}, {METRIC_WORDS[question.metric]} {winner.score:.4f} "
        f"({interval}) on {images} selection photos, the best of {findings.considered}."
    ]
    for found in findings.comparisons:
        relation = f"is as good as {chosen}" if found.as_good else f"is not as good as {chosen}"
        beyond = "" if found.affordable else ", but beyond the budget"
        sentences.append(
            f"The {found.label} {relation}{beyond}: {found.row.score:.4f}, a lead of {found.difference:+.4f} "
            f"({found.low:+.4f} to {found.high:+.4f}) for the chosen."
        )
    if images < FEW_IMAGES:
        sentences.append(
            f"With only {images} selection photos the choice among {findings.considered} is partly luck, and its score "
            "here flatters it: where a plain mean is as good, the plain mean is the safer choice."
        )
    return " ".join(sentences)


def sentences(text: str) -> list[str]:
    """A verdict split at full stops that end a sentence; those in numbers have no space behind them."""
    parts = text.replace(". ", ".\n").split("\n")
    return [part for part in parts if part]


def _baselines(pool: Pool, question: Question) -> dict[str, Ensemble]:
    """The simpler choices by label. The best single ones are the best within the budget; the means are as they are."""
    singles = within_budget(pool, subsets(len(pool.names), 1), question.budget)
    values = scores(pool.logits, pool.labels, singles, question.metric)
    alone = as_tuples(singles)
    best_first = [alone[place] for place in ranked(pool, alone, values, question.metric)]
    named: dict[str, Ensemble] = {f"best single model ({pool.names[best_first[0][0]]})": best_first[0]}
    teacher = next((single for single in best_first if pool.names[single[0]].startswith("teacher/")), None)
    if teacher is not None and teacher != best_first[0]:
        named[f"best single teacher ({pool.names[teacher[0]]})"] = teacher
    for label, group in _plain_means(pool.names):
        if len(group) > 1 and group not in named.values():
            named[f"plain mean of all {len(group)} {label}"] = group
    return named


def _plain_means(names: Sequence[str]) -> Iterator[tuple[str, Ensemble]]:
    """All teachers, all students, all models; of several recipes, each one's models of the last round too."""
    for label, prefix in (("teachers", "teacher/"), ("students", "student/"), ("models", "")):
        yield label, tuple(place for place, name in enumerate(names) if name.startswith(prefix))
    last = "student" if any(name.startswith("student/") for name in names) else "teacher"
    recipes = {place: recipe_of(name) for place, name in enumerate(names) if name.startswith(f"{last}/")}
    for recipe in dict.fromkeys(recipes.values()):
        yield f"{last}s of {recipe}", tuple(place for place, found in recipes.items() if found == recipe)


def _score(pool: Pool, ensemble: Ensemble, metric: str) -> float:
    return float(scores(pool.logits, pool.labels, np.array([ensemble], dtype=np.int32), metric)[0])


def _members(pool: Pool, ensemble: Ensemble) -> str:
    return "+".join(pool.names[member] for member in ensemble)


def _row(row: Row) -> dict[str, Any]:
    numbers = {"score": _round(row.score), "score_low": _round(row.low), "score_high": _round(row.high)}
    return {"ensemble": row.ensemble, **numbers}


def _round(value: float) -> float:
    """Twelve digits: what float64 sums agree on from one machine to the next."""
    return round(float(value), 12)
