"""A forecast for people: the fleet, where each fold would run, the finish, what holds it up, what would help."""

from __future__ import annotations

import statistics

from rich.console import Console
from rich.table import Table

from coordinator.forecast import Bottleneck, Forecast, Saving
from coordinator.forecast_basis import Basis
from coordinator.machine_lines import duration


def show_forecast(console: Console, forecast: Forecast, basis: Basis, plays: int) -> None:
    """Tables within 100 columns, and sentences."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    say(f"the machines, {basis.said}:")
    console.print(_fleet(forecast, basis))
    if forecast.bottleneck is None:
        say("nothing is left to train")
        return
    say(f"where folds would run, in {plays} plays of what is not known yet (early stops, odd epochs):")
    console.print(_folds(forecast))
    low, middle, high = map(duration, forecast.finish)
    say(f"expected finish: in {middle}, in 8 of 10 plays between {low} and {high}")
    if len(forecast.machines) > 1:
        say(_bottleneck(forecast.bottleneck))
    for saving in forecast.savings:
        say(_saving(saving))


def _bottleneck(stuck: Bottleneck) -> str:
    alone = f", and there alone for {duration(stuck.alone)}"
    return f"bottleneck: {stuck.machine}, where the last fold ends in {stuck.share:.0%} of plays{alone}"


def _saving(saving: Saving) -> str:
    if saving.saved < 0.02 * (saving.finish + saving.saved):
        return f"one more machine like {saving.machine} would save nothing to speak of"
    return f"one more machine like {saving.machine} would save {duration(saving.saved)}: {duration(saving.finish)}"


def _fleet(forecast: Forecast, basis: Basis) -> Table:
    table = _table("machine", "slots", "speed", "GB", "one epoch", "folds", "busy", left=("machine",))
    epoch = statistics.median(basis.epoch_seconds.values()) if basis.epoch_seconds else 0.0
    for machine in forecast.machines:
        model = machine.model
        memory = "" if model.memory_gb is None else f"{model.memory_gb:.1f}"
        seconds = duration(epoch / model.speed)
        busy = f"{machine.busy:.0%}"
        table.add_row(model.name, str(model.slots), f"{model.speed:.2f}", memory, seconds, f"{machine.folds:.1f}", busy)
    return table


def _folds(forecast: Forecast) -> Table:
    table = _table("fold", "begins on", "ends on", "in plays", "begins", "ends", left=("fold", "begins on", "ends on"))
    for fold in forecast.folds:
        times = (f"{fold.share:.0%}", duration(fold.begins), duration(fold.ends))
        table.add_row(fold.name, fold.first, fold.last, *times)
    return table


def _table(*columns: str, left: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    return table
