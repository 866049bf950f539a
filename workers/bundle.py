"""The exported predictor: a folder of plain files that needs no store, no Ray and no training code's state.

    bundle.json            classes, each member's network and preprocessing, the side to which the run shrank photos,
                           versions, sha256 of every other file
    <member>.safetensors   one a member: the kept weights, the very bytes that training left
    model.onnx             the whole ensemble, where it could be made (`bundle.json` says so, or why not)
    README.md              the model card

Every weight is verified when a bundle is loaded, nothing is ever unpickled, and file names with a folder are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import timm
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from shared_store.commits import read_result
from shared_store.errors import UserError
from shared_store.layout import slug
from shared_store.records import Result, canonical_json, sha256
from workers.card import model_card
from workers.folding import folded
from workers.images import Normaliser
from workers.model import empty_model, load_state, multiply_adds, parameter_count, preprocessing
from workers.onnx_export import export_onnx
from workers.predictor import Member, Predictor
from workers.recipe import Recipe
from workers.tasks import BundleTask, Progress
from workers.work import Work

INDEX = "bundle.json"
ONNX = "model.onnx"
CARD = "README.md"
Triple = tuple[float, float, float]
ReadFile = Callable[[str], bytes | None]
"""A bundle's file by name; None when there is none."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MemberEntry(_Part):
    """One network: how to build it and what to feed it."""

    name: str
    task: str
    file: str
    architecture: str  # timm's name
    image_size: int
    mean: Triple
    std: Triple
    resize: str = "longest side to image_size, EXIF applied; area filter down, linear up"
    pad: str = "to a square with black, centred"
    parameters: int
    multiply_adds: int


class OnnxEntry(_Part):
    file: str | None
    note: str
    inputs: tuple[str, ...]


class Index(_Part):
    """`bundle.json`. `digest` is the sha256 of all the rest as canonical JSON."""

    format: Literal["foldfleet bundle"] = "foldfleet bundle"
    version: Literal[1] = 1
    classes: tuple[str, ...]
    combine: str = "mean of the members' logits, then softmax"
    longest_side: int | None = Field(default=None, ge=1)  # bundles made before it was noted: photos as they are
    members: tuple[MemberEntry, ...]
    onnx: OnnxEntry
    versions: Mapping[str, str]
    files: Mapping[str, str]
    digest: str = ""

    def sealed(self) -> Index:
        unsaid = {"longest_side"} if self.longest_side is None else set[str]()
        rest = self.model_dump(mode="json", exclude={"digest"} | unsaid)
        return self.model_copy(update={"digest": sha256(canonical_json(rest))})


def load_bundle(folder: Path | str, device: str = "cpu") -> Predictor:
    """The predictor in `folder`. UserError when it is no bundle, or a file is missing or damaged."""
    root = Path(folder)

    def read(name: str) -> bytes | None:
        path = root / name
        return path.read_bytes() if path.is_file() else None

    return open_bundle(read, str(root), device)


def open_bundle(read: ReadFile, where: str, device: str = "cpu") -> Predictor:
    """The same of a bundle whose files come from anywhere; `where` is what messages call it."""
    index = _index(read(INDEX), where)
    members = []
    for entry in index.members:
        data = read(entry.file)
        if data is None:
            raise _broken(f"a file of the bundle is missing: {entry.file}", where)
        if sha256(data) != index.files[entry.file]:
            raise _broken(f"a file of the bundle is damaged: {entry.file}", where)
        members.append(_member(entry, data, len(index.classes), where, device))
    return Predictor(index.classes, members, device, index.longest_side)


def _index(data: bytes | None, where: str) -> Index:
    if data is None:
        mend = "give the `bundle` folder of a run, or a copy of the whole folder"
        raise UserError(f"not a bundle: there is no {INDEX}", where=where, mend=mend)
    try:
        index = Index.model_validate_json(data)
    except ValidationError as error:
        raise _broken(f"{INDEX} is not one that this foldfleet reads: {error.errors()[0]['msg']}", where) from error
    if index.sealed().digest != index.digest:
        raise _broken(f"{INDEX} was changed after the export", where)
    for entry in index.members:
        if entry.file not in index.files or Path(entry.file).name != entry.file:
            raise _broken(f"{INDEX} names a file that no bundle has: {entry.file}", where)
    return index


def _member(entry: MemberEntry, data: bytes, classes: int, where: str, device: str) -> Member:
    if not timm.is_model(entry.architecture):
        mend = "install the timm that bundle.json names under `versions`"
        raise UserError(f"this machine's timm has no model {entry.architecture!r}", where=where, mend=mend)
    model = empty_model(Recipe(model=entry.architecture, image_size=entry.image_size), classes)
    try:
        load_state(model, safetensors.torch.load(data))
    except (SafetensorError, ValueError) as error:
        raise _broken(f"{entry.file} does not fit {entry.architecture}: {error}", where) from error
    model = folded(model.eval()).to(device).requires_grad_(False)
    return Member(entry.name, entry.image_size, model, Normaliser(entry.mean, entry.std, device))


def _broken(what: str, where: str) -> UserError:
    return UserError(what, where=where, mend="copy the bundle again from the run that made it, whole and unchanged")


def export_bundle(task: BundleTask, work: Work) -> Result:
    """Write the winner of `task.search` as a bundle; blobs `file:<name>`. The same winner gives the same weights."""
    search = read_result(work.store, task.search)
    assert search is not None, f"{task.name} ran before {task.search} had a result"
    described = {str(member["id"]): member for member in task.members}
    winners = [described[name] for name in json.loads(search.texts["winner"])]
    _say(work, f"exporting {' + '.join(str(member['name']) for member in winners)}")
    files = {f"{slug(str(member['name']))}.safetensors": _weights(work, str(member["id"])) for member in winners}
    assert len(files) == len(winners), f"{task.name}: two members share one name"
    entries = [_entry(member, file, len(task.classes)) for member, file in zip(winners, files, strict=True)]
    loaded = [_member(entry, files[entry.file], len(task.classes), task.name, "cpu") for entry in entries]
    predictor = Predictor(task.classes, loaded, "cpu")
    exported = export_onnx(predictor, work.threads)
    if exported.data is not None:
        files[ONNX] = exported.data
    inputs = tuple(f"images_{size}" for size in predictor.sizes)
    onnx = OnnxEntry(file=None if exported.data is None else ONNX, note=exported.note, inputs=inputs)
    index = Index(
        classes=task.classes,
        longest_side=task.longest_side,
        members=tuple(entries),
        onnx=onnx,
        versions=_versions(),
        files={},
    )
    files[CARD] = model_card(index.model_dump(mode="json"), search, winners, work.store)
    hashes = {name: sha256(data) for name, data in files.items()}
    index = index.model_copy(update={"files": hashes}).sealed()
    files[INDEX] = json.dumps(index.model_dump(mode="json"), indent=2, ensure_ascii=False).encode() + b"\n"
    blobs = {f"file:{name}": work.store.put_blob(data) for name, data in files.items()}
    return Result(work.task, work.spec, work.attempt, work.nonce, blobs=blobs, texts={"onnx": exported.note})


def _weights(work: Work, member: str) -> bytes:
    trained = read_result(work.store, member)
    assert trained is not None, f"{member} was chosen and has no result"
    return work.store.get_blob(trained.blobs["model"])


def _entry(member: Mapping[str, Any], file: str, classes: int) -> MemberEntry:
    recipe = Recipe.model_validate(member["recipe"])
    expects = preprocessing(recipe)
    model = empty_model(recipe, classes)
    return MemberEntry(
        name=str(member["name"]),
        task=str(member["id"]),
        file=file,
        architecture=recipe.model,
        image_size=recipe.image_size,
        mean=expects.mean,
        std=expects.std,
        parameters=parameter_count(model),
        multiply_adds=multiply_adds(model, recipe.image_size),
    )


def _versions() -> dict[str, str]:
    return {"torch": str(torch.__version__), "timm": str(timm.__version__)}


def _say(work: Work, note: str) -> None:
    work.reporter.progress(Progress(work.task, work.attempt, note=note))
