"""When folds stop early: certain bounds, and what others of their kind did."""

from __future__ import annotations

from long_folds import long_graph

from coordinator.early_stops import EarlyStops
from coordinator.estimate import work_key
from workers.tasks import Progress

GRAPH = long_graph(patience=20)
FOLDS = GRAPH.named("teacher/")


def stops() -> EarlyStops:
    return EarlyStops(GRAPH, {name: work_key(task) for name, task in GRAPH.tasks.items()})


def test_without_patience_or_with_a_late_best_a_fold_ends_with_its_last_epoch() -> None:
    endless = long_graph()
    keys = dict.fromkeys(endless.tasks, "work")
    assert EarlyStops(endless, keys).last_epoch(endless.named("teacher/")[0]) == (100, 100, 100)
    late = stops()
    late.progressed(Progress(FOLDS[0], 1, epoch=82, best_epoch=81))
    assert late.last_epoch(FOLDS[0]) == (100, 100, 100)


def test_what_does_not_train_is_one_epoch() -> None:
    assert stops().last_epoch(GRAPH.named("search/")[0]) == (1, 1, 1)


def test_every_fold_that_stopped_early_makes_an_early_stop_of_the_next_likelier() -> None:
    seen, likely = stops(), []
    seen.progressed(Progress(FOLDS[0], 1, epoch=40, best_epoch=30))
    for _ in range(4):
        likely.append(seen.last_epoch(FOLDS[0])[1])
        seen.progressed(Progress(FOLDS[1], 1, epoch=45, best_epoch=25))
        seen.ended(FOLDS[1], done=True)
    assert likely == sorted(likely, reverse=True) and likely[-1] > 50
    before = seen.last_epoch(FOLDS[0])
    seen.ended(FOLDS[1], done=False)  # a fold that was lost says nothing
    assert seen.last_epoch(FOLDS[0]) == before
