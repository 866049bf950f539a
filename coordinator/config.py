"""The experiment: all sections, checked whole before any work. Pure: texts in, a frozen model out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from coordinator.variants import Variant, check_recipes, variants_of
from shared_store.errors import UserError
from workers.recipe import Recipe

Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)


class DataSection(Section):
    folder: str | None = None
    """Folder of class folders, or CSV (path, label, group, part): the DATA argument of the commands."""
    selection: str | None = None
    """Folder or CSV with labelled photos to choose the ensemble on; None cuts a share off the train photos."""
    test: str | None = None
    """Folder or CSV of photos to predict, labelled or not; nothing is ever chosen on them."""
    longest_side: Annotated[int, Field(ge=32, le=8192)] = 600
    """Larger photos are kept smaller, in pixels."""
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
    """Folds; no class may have fewer photos or groups."""
    selection_fraction: Annotated[float, Field(gt=0, lt=0.9)] = 0.15
    """Share of the train photos cut off before the folds, when no `data.selection` is given."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """Train every fold this many times, each time with the recipe's next seed."""


class DistillSection(Section):
    rounds: Literal[1, 2] = 2
    """1: teachers only. 2: teachers, soft labels, students."""
    labels: Literal["oof", "nested"] = "oof"
    """`oof`: by the teacher that held a photo out. `nested`: by one that held out the student's fold too."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Weight of the teacher's soft label against the one-hot label."""


class EnsembleSection(Section):
    max_members: Annotated[int, Field(ge=1, le=50)] = 3
    """Networks in an ensemble, at most."""
    metric: Literal["mean_ap", "top_class_ap", "accuracy", "log_loss"] = "mean_ap"
    """What the best is best in."""
    bootstrap: Annotated[int, Field(ge=100, le=100000)] = 1000
    """Resamples behind every interval and comparison."""
    max_ms_per_image: Annotated[float, Field(gt=0)] | None = None
    """Refuse ensembles that are slower, as measured where their folds trained."""
    max_memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Refuse ensembles that take more memory."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42


class NeedsSection(Section):
    memory_gb: Annotated[float, Field(ge=0)] = 0.0
    """Of a slot's card, or of its share of a machine without one."""
    system: Literal["", "linux", "windows", "darwin"] = ""
    label: str = ""
    """A word among those that the machine's owner put into FOLDFLEET_LABELS."""


class FleetSection(Section):
    address: str | None = None
    """A Ray cluster's address, or `auto`; None: an embedded Ray on this machine alone."""
    slots: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Folds at once on this machine; None: one per GPU, or one per core."""
    dashboard: bool = False
    """Begin Ray's dashboard with an embedded Ray. A fleet has it in any case."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Torch threads of each fold; results repeat to the bit at an equal number."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Tries before a crashing task is given up. A lost machine does not count."""
    hang_minutes: Annotated[float, Field(gt=0)] = 30
    """A fold without any sign of life for this long is ended, and goes on from its last commit."""
    orphan_minutes: Annotated[float, Field(gt=0)] = 30
    """A fold that no coordinator has asked for reports for this long commits where it can, and ends itself."""
    pin: dict[str, str] = {}
    """Folds that run on one machine only: `{fold3: attic, student/fold1: desk}`."""
    needs: dict[str, NeedsSection] = {}
    """What folds ask of a machine, by the name of their recipe or for `all`."""


class StoreSection(Section):
    url: str = "foldfleet-store"
    """Folder or URL where everything is kept: the --store of the commands."""
    cache_folder: str = "~/.cache/foldfleet"
    """This machine's copies of what lies in a store elsewhere, and its own commits."""
    cache_gb: Annotated[float, Field(gt=0)] = 20.0
    """Bound of the copies; the newest two commits of each unfinished fold come on top."""
    upload_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the link that commits may take while training goes on."""


class Experiment(Section):
    """Everything a run needs to know, in the sections of the YAML file and of the overrides."""

    data: DataSection = DataSection()
    folds: FoldsSection = FoldsSection()
    recipe: Recipe = Recipe()
    recipes: dict[str, dict[str, Any]] = {}
    """Several recipes in one run, by name: each is `recipe` with these keys replaced. None: `recipe` alone."""
    distill: DistillSection = DistillSection()
    ensemble: EnsembleSection = EnsembleSection()
    fleet: FleetSection = FleetSection()
    store: StoreSection = StoreSection()

    @field_validator("recipes")
    @classmethod
    def _sound(cls, recipes: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        check_recipes(info.data.get("recipe"), recipes)
        return recipes

    def variants(self) -> tuple[Variant, ...]:
        """What is trained on every fold: each recipe in each repeat. The one way to the recipes of a run."""
        return variants_of(self.recipe, self.recipes, self.folds.repeats)


def parse(text: str, where: str, overrides: Sequence[tuple[str, object]] = ()) -> Experiment:
    """The experiment of a YAML text with `("recipe.epochs", 3)`-like overrides applied, checked whole.

    Raises UserError with every mistake at once: unknown keys with the nearest right name, ranges, types.
    """
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{where}, line {mark.line + 1}" if mark is not None else where
        raise UserError("the configuration is not valid YAML", where=line, mend="mend the line named above") from error
    if not isinstance(values, dict):
        raise UserError("the configuration is not a mapping", where=where, mend="start from configs/demo.yaml")
    for key, value in overrides:
        _set(values, key.replace("-", "_").split("."), value)
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise _explained(error, where) from error


def to_yaml(experiment: Experiment) -> bytes:
    """Every value spelled out; `parse` gives the same experiment back."""
    text: str = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text.encode()


def scalar(text: str) -> object:
    """A word of the command line as a value: numbers, true / false, null, `[lists]` and `{mappings}`; else the text.

    YAML 1.1 itself would take `1e-3` for text, and `2024_01`, `12:30` and `no` for something else than text.
    """
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return float(text)
    if text in ("true", "false", "null") or text[:1] in ("[", "{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def _set(values: dict[str, Any], path: list[str], value: object) -> None:
    for part in path[:-1]:
        inner = values.get(part)
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    values[path[-1]] = value


def _explained(error: ValidationError, where: str) -> UserError:
    lines = [_one_mistake(details) for details in error.errors(include_url=False)]
    keys = ", ".join(".".join(map(str, details["loc"])) or "the file" for details in error.errors(include_url=False))
    mend = "; ".join(mend for _, mend in lines)
    return UserError("; ".join(what for what, _ in lines), where=f"{where}: {keys}", mend=mend)


def _one_mistake(details: ErrorDetails) -> tuple[str, str]:
    """(what is wrong, how to mend it) of one validation error."""
    path = [str(part) for part in details["loc"]]
    key = ".".join(path)
    if path[:1] == ["recipes"] and details["type"] == "dict_type":
        meant = [f"recipe.{name}" for name in path[1:] if name in Recipe.model_fields]
        mend = f"did you mean {meant[0]}?" if meant else f"write {key}: {{}}"
        return f"{key} = {details['input']!r} is no mapping of the keys in which a recipe differs", mend
    if details["type"] != "extra_forbidden":
        message = details["msg"].removeprefix("Value error, ")
        return f"{key} = {details['input']!r}: {message}" if key else message, f"give {key or 'it'} another value"
    known = _keys_at(path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    mend = f"did you mean {'.'.join([*path[:-1], near[0]])}?" if near else f"known there: {', '.join(known)}"
    return f"unknown key {key}", mend


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"augmentation": {"flip": 0.5}}` -> `{"augmentation.flip": 0.5}`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def _keys_at(path: list[str]) -> list[str]:
    model: type[BaseModel] = Experiment
    if path[:2] == ["fleet", "needs"]:
        return list(NeedsSection.model_fields)
    if path[:1] == ["recipes"]:  # recipes.NAME has the keys of recipe
        path = ["recipe", *path[2:]]
    for part in path:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
