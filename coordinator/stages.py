"""A stage of a run: data made ready, some tasks brought to their results, what is known published."""

from __future__ import annotations

from pathlib import Path

from coordinator.config import Experiment
from coordinator.data import RunData, check_data, describe, findings, prepare_data
from coordinator.generation import Hold
from coordinator.graph import Graph
from coordinator.known import Known, gather
from coordinator.outputs import publish_known, publish_report
from coordinator.overview import overview
from coordinator.placing import check_placing
from coordinator.session import Session
from shared_store.cache import Cache
from shared_store.commits import read_result
from shared_store.errors import RunFailedError, StoppedError, UserError
from workers.tasks import Task

EVERYTHING = ("",)


def bring(session: Session, *prefixes: str) -> Known:
    """Prepare the data and bring every task whose name begins with one of `prefixes`, and all it needs, to its result.

    No prefix: the data alone. What was finished before is found in the store. A run that fails or is stopped
    publishes what it has before RunFailedError or StoppedError passes on.
    """
    with session.held() as hold:
        if prefixes and session.new_recipe and session.experiment.fleet.address is None:
            check_data(session.experiment)  # photos that are not there come before weights that are not
            _check_recipes(session.experiment)
        data = prepare_data(session.experiment, session.store, session.console)
        data.record(session.store, session.run)
        session.record()
        if not prefixes:
            session.console.print(describe(data))
        for line in findings(data.prepared):
            session.say(line)
        graph = data.graph(session.experiment)
        check_placing(session.experiment.fleet, graph)
        wanted = graph.part(name for prefix in prefixes for name in graph.named(prefix))
        if prefixes:
            for line in overview(session, data, wanted, missing(session, wanted)):
                session.say(line)
        try:
            _drive_missing(session, wanted, hold, data)
        except (RunFailedError, StoppedError):
            publish(session, data)
            raise
        return publish(session, data)


def _check_recipes(experiment: Experiment) -> None:
    """UserError for the first recipe that cannot be trained. Repeats differ in their seeds alone."""
    from workers.preflight import check_recipe  # torch takes seconds to load, and only training needs it

    for variant in experiment.variants():
        if variant.repeat == 0:
            try:
                check_recipe(variant.recipe)
            except UserError as error:
                named = f"recipes.{variant.recipe_name}: {error.where}" if variant.recipe_name else error.where
                raise UserError(error.what, where=named, mend=error.mend) from error


def publish(session: Session, data: RunData) -> Known:
    """Write all that is known of the run under `runs/NAME/`, and return it."""
    known = gather(session.store, session.run, session.experiment, data)
    publish_known(session.store, known, _cache(session))
    return known


def _cache(session: Session) -> Cache:
    return Cache(Path(session.experiment.store.cache_folder).expanduser(), session.experiment.store.cache_gb)


def missing(session: Session, graph: Graph) -> dict[str, Task]:
    """The tasks without a result, by id, in the graph's order."""
    return {name: task for name, task in graph.tasks.items() if read_result(session.store, name) is None}


def _drive_missing(session: Session, graph: Graph, hold: Hold, data: RunData) -> None:
    def write() -> None:
        publish_report(session.store, gather(session.store, session.run, session.experiment, data), _cache(session))

    if missing(session, graph):
        session.drive(graph, hold, write)
    elif graph.tasks:
        session.say(f"all {len(graph.tasks)} tasks were done before")
