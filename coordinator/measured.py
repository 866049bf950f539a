"""What `foldfleet doctor` measured on the machines of a fleet, kept where it is driven: what the planner first goes by.

`~/.foldfleet/measured.json`. A machine's speed in a run's own recipes says more than a probe's small network; it stands
until epochs are timed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.checks import Answer
from shared_store.records import canonical_json, sha256
from workers.examined import Examined
from workers.recipe import Recipe
from workers.tasks import UNCOUNTED

FILE = ".foldfleet/measured.json"  # below the home of whoever drives


class Steps(BaseModel):
    """Seconds of one optimizer step, and of predicting one image."""

    model_config = ConfigDict(frozen=True)
    step_seconds: float
    image_seconds: float


class MeasuredMachine(BaseModel):
    """One machine as it was examined."""

    model_config = ConfigDict(frozen=True)
    name: str
    slots: int
    gpu: bool
    bits: int
    memory_gb: float | None
    system: str
    probe_speed: float | None
    link_mb_per_second: float | None
    steps: dict[str, Steps]  # by what `recipe_key` says


class MeasuredFleet(BaseModel):
    """All machines of one examination, by their ids."""

    model_config = ConfigDict(frozen=True)
    machines: dict[str, MeasuredMachine] = {}

    def speeds(self, recipes: Sequence[Recipe]) -> dict[str, float]:
        """Speeds in these recipes by machine id, on the scale of the probes; machines that did not try all have none.

        A speed is how often a machine makes one step of every recipe in a second, over the same of a machine whose
        probe says 1: the median of all, so that one odd probe bends no scale.
        """
        rates = {name: rate for name, one in self.machines.items() if (rate := _rate(one, recipes)) is not None}
        scales = [rate / probed for name, rate in rates.items() if (probed := self.machines[name].probe_speed)]
        return {name: rate / statistics.median(scales) for name, rate in rates.items()} if scales else {}


@dataclass(frozen=True)
class Known:
    """What a run goes by for one machine; None: not measured."""

    speed: float | None = None
    link_mb_per_second: float | None = None


def recipe_key(recipe: Recipe) -> str:
    """The same for recipes whose steps take the same time: neither the seed nor how often it commits counts."""
    values = recipe.model_dump(
        mode="json", exclude={"seed", "epochs", "patience", "keep", *UNCOUNTED - {"checkpointing"}}
    )
    return sha256(canonical_json(values))[:16]


def measured_fleet(answers: Iterable[Answer], recipes: Mapping[str, Recipe], threads: int) -> MeasuredFleet:
    """What the planner can use of what was examined. `recipes`, by name, and `threads` of a fold: as asked."""
    examined = [(answer.machine, answer.examined) for answer in answers if answer.examined is not None]
    return MeasuredFleet(machines={one.machine_id: _machine(name, one, recipes, threads) for name, one in examined})


def read_measured(home: Path) -> MeasuredFleet:
    """What was kept here; nothing where nobody examined, or another version wrote it: then probes say it."""
    try:
        return MeasuredFleet.model_validate_json((home / FILE).read_bytes())
    except (OSError, ValidationError):
        return MeasuredFleet()


def known_machines(fleet: MeasuredFleet, recipes: Sequence[Recipe]) -> dict[str, Known]:
    """By machine id."""
    speeds = fleet.speeds(recipes)
    return {name: Known(speeds.get(name), one.link_mb_per_second) for name, one in fleet.machines.items()}


def _machine(name: str, one: Examined, recipes: Mapping[str, Recipe], threads: int) -> MeasuredMachine:
    first = next((trained.device for trained in one.trained), "cpu")
    own = [trained for trained in one.trained if trained.device == first]
    steps = {
        recipe_key(recipes[trained.recipe]): Steps(
            step_seconds=trained.step_seconds, image_seconds=trained.image_seconds or 0
        )
        for trained in own
        if trained.step_seconds
    }
    seen, gpu = one.cards_of_torch, first != "cpu"
    slots = len(seen) if gpu else max(1, one.cpus // threads)
    memory_gb = one.memory_gb and one.memory_gb / slots
    if gpu:
        memory_gb = one.cards[0].memory_gb if one.cards else None  # the driver does not tell of any
    speed = one.store and one.store.write_mb_per_second
    return MeasuredMachine(
        name=name,
        slots=slots,
        gpu=gpu,
        bits=own[0].bits if own else 32,
        memory_gb=memory_gb,
        system=one.system,
        probe_speed=one.probe_speed,
        link_mb_per_second=speed,
        steps=steps,
    )


def _rate(one: MeasuredMachine, recipes: Sequence[Recipe]) -> float | None:
    steps = [one.steps.get(recipe_key(recipe)) for recipe in recipes]
    if not steps or any(step is None for step in steps):
        return None
    return 1 / sum(step.step_seconds for step in steps if step is not None)
