"""When folds will stop early: from what is possible, and from when others of their kind did. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from coordinator.graph import Graph
from workers.tasks import Progress, TrainTask

LastEpoch = tuple[float, float, float]
"""(earliest, likely, latest) epoch that a fold ends with."""


class EarlyStops:
    """The epochs that folds end with. A fold ends `patience` epochs after its best one, or with its recipe's last."""

    def __init__(self, graph: Graph, keys: Mapping[str, str]) -> None:
        self._keys = keys
        self._recipes = {
            name: _limits(task.recipe) for name, task in graph.tasks.items() if isinstance(task, TrainTask)
        }
        self._state: dict[str, tuple[int, int]] = {}  # by task: (epochs finished, best of them)
        self._bests: dict[str, Counter[int]] = defaultdict(Counter)  # by kind of work: best epochs of folds that ended
        self._known: dict[tuple[str, int, int], LastEpoch] = {}

    def progressed(self, progress: Progress) -> None:
        """A fold finished an epoch, or found a better one."""
        if progress.task in self._recipes:
            epoch, best = self._state.get(progress.task, (0, 0))
            self._state[progress.task] = max(epoch, progress.epoch), max(best, progress.best_epoch or 0)

    def ended(self, task: str, done: bool) -> None:
        """An attempt is over; `done`: with the fold's result."""
        if done and task in self._state:
            key = self._keys[task]
            self._bests[key][self._state[task][1]] += 1
            for known in [known for known in self._known if known[0] == key]:
                del self._known[known]

    def last_epoch(self, task: str) -> LastEpoch:
        """What a fold ends with; (1, 1, 1) for what does not train.

        Whether a better epoch than the present best will come has the share of ended folds whose best came later than
        the present epoch, with one added to either side (Laplace's rule of succession). If none comes, the fold ends
        `patience` after its best; else as those folds did in the mean, or halfway while there are none.
        """
        limits = self._recipes.get(task)
        if limits is None:
            return 1.0, 1.0, 1.0
        epochs, patience = limits
        epoch, best = self._state.get(task, (0, 0))
        if patience is None or best + patience >= epochs:
            return float(epochs), float(epochs), float(epochs)
        known = (self._keys[task], epoch, best)
        if known not in self._known:
            self._known[known] = self._forecast(known, epochs, patience)
        return self._known[known]

    def _forecast(self, known: tuple[str, int, int], epochs: int, patience: int) -> LastEpoch:
        key, epoch, best = known
        earliest = float(max(best + patience, epoch))
        bests = self._bests[key]
        ends = [(min(epochs, later + patience), folds) for later, folds in bests.items() if later > epoch]
        better = sum(folds for _, folds in ends)
        chance = (better + 1) / (bests.total() + 2)
        later = sum(end * folds for end, folds in ends) / better if better else (earliest + epochs) / 2
        return earliest, (1 - chance) * earliest + chance * later, float(epochs)


def _limits(recipe: Mapping[str, int | None]) -> tuple[int, int | None]:
    """(epochs, patience)"""
    epochs = recipe["epochs"]
    assert epochs is not None
    return epochs, recipe["patience"]
