"""The experiment: all sections, checked whole before any work. Pure but for reading one YAML text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from workers.recipe import Recipe

Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSection(Section):
    selection: str | None = None
    """Folder or CSV with labelled photos to choose the ensemble on; None cuts a share off the train photos."""
    test: str | None = None
    """Folder or CSV of photos to predict, labelled or not; nothing is ever chosen on them."""
    longest_side: Annotated[int, Field(ge=32, le=8192)] = 600
    max_rejected: Share = 0.05
    """Stop when a larger share of the files cannot be read."""
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = 2
    """Photos whose perceptual hashes differ in at most this many of 64 bits are duplicates; 0: equal hashes only."""
    composites: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Paste-composites to make per class, from the train part."""
    composite_rounds: tuple[Literal["teacher", "student"], ...] = ("student",)
    """The rounds that learn from composites."""


class FoldsSection(Section):
    count: Annotated[int, Field(ge=2, le=100)] = 5
    selection_fraction: Annotated[float, Field(gt=0, lt=0.9)] = 0.15
    """Share of the train photos cut off before the folds, when no `data.selection` is given."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42


class DistillSection(Section):
    rounds: Literal[1, 2] = 2
    """1: teachers only. 2: teachers, soft labels, students."""
    labels: Literal["oof", "nested"] = "oof"
    weight: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Weight of the teacher's soft label against the one-hot label."""


class EnsembleSection(Section):
    max_members: Annotated[int, Field(ge=1, le=50)] = 3
    metric: Literal["mean_ap", "top_class_ap", "accuracy", "log_loss"] = "mean_ap"
    bootstrap: Annotated[int, Field(ge=100, le=100000)] = 1000
    """Resamples behind every interval and comparison."""
    max_ms_per_image: Annotated[float, Field(gt=0)] | None = None
    max_memory_gb: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42


class FleetSection(Section):
    address: str | None = None
    """A Ray cluster's address, or `auto`; None: an embedded Ray on this machine alone."""
    slots: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Folds at once on this machine; None: one per GPU, or one per core."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Torch threads of each fold; results repeat to the bit at an equal number."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Tries before a crashing task is given up. A lost machine does not count."""


class StoreSection(Section):
    url: str = "foldfleet-store"
    cache_gb: Annotated[float, Field(gt=0)] = 20.0


class Experiment(Section):
    """Everything a run needs to know, in the sections of the YAML file and of the overrides."""

    data: DataSection = DataSection()
    folds: FoldsSection = FoldsSection()
    recipe: Recipe = Recipe()
    distill: DistillSection = DistillSection()
    ensemble: EnsembleSection = EnsembleSection()
    fleet: FleetSection = FleetSection()
    store: StoreSection = StoreSection()
