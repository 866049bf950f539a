"""One run, held by one process: its configuration, its lock, its data, and driving its tasks.

The jobs are stories told in calls to a `Session`.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from coordinator.committing import commits_alone, find_committer
from coordinator.config import Experiment, flat, parse, to_yaml
from coordinator.endings import check_ending
from coordinator.footprints import reckon
from coordinator.generation import Hold, Watch, driving
from coordinator.graph import Graph
from coordinator.ledger import Ledger
from coordinator.measured import Known, known_machines, read_measured
from coordinator.metrics import Metrics
from coordinator.rewriting import Rewriting
from coordinator.run_files import journal_here, with_run_files_here
from coordinator.view import View, summary
from shared_store import layout
from shared_store.errors import UserError
from shared_store.store import Store, open_store, whole_path
from workers.tasks import UNCOUNTED

CONFIG = "config.yaml"
_Handler = Callable[[int, FrameType | None], Any] | int | None  # what `signal.signal` takes and gives back
_PLACES = ("data.folder", "data.selection", "data.test")


@dataclass(frozen=True)
class Session:
    """A run's name, its store and its experiment, with the person's console."""

    run: str
    store: Store
    experiment: Experiment
    console: Console
    new_recipe: bool  # not the one of this run's last command
    take_over: bool = False  # end whoever drives the run

    @classmethod
    def open(
        cls,
        run: str,
        config: str | None,
        overrides: Sequence[tuple[str, object]],
        console: Console,
        take_over: bool = False,
    ) -> Session:
        """Read and check the whole configuration: `config`, else the run's own, else the defaults; then overrides.

        UserError for a missing or wrong configuration, a store that cannot be used or a bad name of a run.
        """
        text, where = "", "the command line"
        if config is not None:
            text, where = read_config(config), config
        overrides = [(key, _absolute(value) if key in _PLACES else value) for key, value in overrides]
        experiment = parse(text, where, overrides)
        store = _reached(experiment, console)
        own = store.read(layout.run_file(run, CONFIG))
        if own is not None and config is None:
            where = f"{layout.run_file(run, CONFIG)} and the command line"
            experiment = parse(own.decode(), where, [*overrides, ("store.url", experiment.store.url)])
        before = None if own is None else parse(own.decode(), layout.run_file(run, CONFIG))
        new_recipe = before is None or before.variants() != experiment.variants()
        session = cls(run, store, experiment, console, new_recipe, take_over)
        if before is not None:
            session._tell_changes(before)
        return session

    def record(self) -> None:
        """Keep the configuration in the run, for the commands that follow."""
        self.store.publish(layout.run_file(self.run, CONFIG), to_yaml(self.experiment))

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def path(self, file: str) -> Path:
        """Where a file of this run lies on this machine (below the cache when the store is elsewhere)."""
        path = self.store.backend.local_path(layout.run_file(self.run, file))
        assert path is not None, f"{self.store.url} keeps no run's files here"
        return path

    def held(self) -> AbstractContextManager[Hold]:
        """Hold the run: one process at a time drives it. UserError says who does, and since when."""
        if self.store.url.startswith("head://"):
            self.store.backend = _reached(
                self.experiment, self.console
            ).backend  # the run's own configuration may name the fleet
        find_committer(self.store, self.say)
        lock = self.path(CONFIG).with_name(".lock")  # unlisted: where locks are mandatory, nobody else may read it
        return driving(self.store, self.run, lock, Watch(self.say), take_over=self.take_over)

    def drive(self, graph: Graph, hold: Hold, write_report: Callable[[], None]) -> Ledger:
        """Bring every task of `graph` to its result, while the run is ours to drive; the report is rewritten meanwhile.

        RunFailedError or StoppedError when that did not happen; UserError where no card here is large enough.
        """
        from coordinator.drive import drive, watched_by  # Ray takes seconds to load: not for a command that only looks
        from coordinator.fleet import RayFleet
        from coordinator.ray_series import RaySeries
        from coordinator.search import run_search

        fleet_section, store_section = self.experiment.fleet, self.experiment.store
        if fleet_section.address is None:
            self.say("no cluster given: running on an embedded Ray on this machine")
        cache_folder = str(Path(store_section.cache_folder).expanduser())
        alone = commits_alone(self.store)
        clock = _stopwatch()
        with (
            journal_here(self.store, self.run) as journal,
            contextlib.closing(
                RayFleet(
                    fleet_section,
                    store_section.model_copy(update={"url": self.store.url}),
                    cache_folder,
                    run_search,
                    alone,
                    clock=clock,
                    measured=self._measured(),
                )
            ) as fleet,
            StopSignal() as stop,
            self._view(graph) as view,
            Rewriting(write_report, self.say) as rewriting,
        ):
            if fleet.dashboard:
                self.say(f"Ray's dashboard, as long as this command runs: {fleet.dashboard}")
            ledger = drive(
                graph,
                open_store(self.store.url, single_committer=True) if alone else self.store,
                fleet,
                fleet_section,
                clock=clock,
                journal=journal,
                watch=watched_by(view, Metrics(self.run, RaySeries()), rewriting),
                stop=lambda: stop.requested() or hold.successor is not None,
                footprints=reckon(self.experiment, graph, self.say) if fleet.has_cards else None,
                began=datetime.now().astimezone().isoformat(timespec="seconds"),
            )
        self.say(summary(ledger))
        check_ending(self.experiment, self.store, self.run, ledger, hold)
        return ledger

    def _view(self, graph: Graph) -> View:
        view = View(self.console)
        view.show_standing(self.store, graph.tasks)
        return view

    def _measured(self) -> dict[str, Known]:
        """What `foldfleet doctor` found of the fleet's machines, where this run is to use them."""
        if self.experiment.fleet.address is None:
            return {}
        recipes = [variant.recipe for variant in self.experiment.variants() if variant.repeat == 0]
        return known_machines(read_measured(Path.home()), recipes)

    def _tell_changes(self, before: Experiment) -> None:
        old, new = flat(before.model_dump(mode="json")), flat(self.experiment.model_dump(mode="json"))
        differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        changed = [key for key in differ if key.split(".")[0] not in ("fleet", "store")]
        for key in changed:
            self.say(f"changed since this run's last command: {key}: {old.get(key)} -> {new.get(key)}")
        if any(not key.startswith("data.") and key.split(".")[-1] not in UNCOUNTED for key in changed):
            self.say("what depends on it is other work now and runs anew; what was finished before stays in the store")


class StopSignal:
    """Ctrl-C (or SIGTERM) once asks to stop; twice raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, _Handler] = {}

    def requested(self) -> bool:
        return self._asked

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt("At once, as asked twice: each fold goes on from its last commit.")
        self._asked = True


def _reached(experiment: Experiment, console: Console) -> Store:
    """The experiment's store; the disk of a fleet's head is reached through Ray."""
    if experiment.store.url.startswith("head://") and experiment.fleet.address is not None:
        from coordinator.cluster import begin_ray  # Ray takes seconds to load

        begin_ray(experiment.fleet.address)
    store = open_store(experiment.store.url, tell=lambda sentence: console.print(sentence, markup=False))
    return with_run_files_here(store, Path(experiment.store.cache_folder).expanduser())


def _absolute(place: object) -> object:
    """A folder as given, or whole, so that the run's own configuration holds wherever the next command is given."""
    return str(whole_path(place)) if isinstance(place, str) else place


def read_config(config: str) -> str:
    """The text of a configuration's file. UserError where it cannot be read."""
    try:
        return Path(config).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        mend = "give --config a YAML file, such as configs/demo.yaml"
        raise UserError(f"the configuration cannot be read ({why})", where=config, mend=mend) from error


def _stopwatch() -> Callable[[], float]:
    began = time.monotonic()
    return lambda: time.monotonic() - began
