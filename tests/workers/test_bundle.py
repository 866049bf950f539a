"""The exported predictor: what is in it, that it loads alone, that damage is noticed, that ONNX agrees."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from predictor_support import (
    CLASSES,
    LONGEST_SIDE,
    bundle_task,
    exported_folder,
    run_bundle,
    search_result,
    trained_member,
    work_for,
)

from shared_store.cache import Cache
from shared_store.errors import UserError
from shared_store.records import canonical_json, sha256
from shared_store.store import Store
from workers.bundle import load_bundle
from workers.decode import decode
from workers.framing import EvaluationTransform
from workers.metrics import softmax
from workers.onnx_export import export_onnx


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three members: two of one recipe at 32 pixels, and another network at 48."""
    return exported_folder(tmp_path_factory.mktemp("made"), sizes=(32, 48, 32))


def _copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def _photos(count: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    random = np.random.default_rng(7)
    return [random.integers(0, 256, (30 + 3 * i, 50 - i, 3), dtype=np.uint8) for i in range(count)]


def test_a_bundle_holds_weights_index_card_and_onnx(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    weights = {"teacher-fold0.safetensors", "teacher-fold1.safetensors", "student-fold0.safetensors"}
    assert names == weights | {"bundle.json", "README.md", "model.onnx"}
    index = json.loads((folder / "bundle.json").read_text())
    assert index["classes"] == list(CLASSES)
    assert index["longest_side"] == LONGEST_SIDE
    members = [(member["architecture"], member["image_size"]) for member in index["members"]]
    assert members == [("test_efficientnet", 32), ("test_convnext", 48), ("test_efficientnet", 32)]
    assert index["versions"]["torch"] == torch.__version__
    assert index["files"] == {
        path.name: sha256(path.read_bytes()) for path in folder.iterdir() if path.name != "bundle.json"
    }


def test_the_card_counts_photos_and_says_the_verdict(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert "the verdict of the search" in card
    assert "| digit_0 | 6 | 0 |" in card
    assert "| all | 24 | 0 |" in card
    assert "student/fold0" in card
    assert f"longest side to {LONGEST_SIDE} pixels" in card


def test_logits_are_the_mean_of_the_members(folder: Path) -> None:
    predictor = load_bundle(folder)
    photos = _photos(3)
    one_by_one = []
    for member in predictor.members:
        alone = type(predictor)(predictor.classes, [member], "cpu")
        one_by_one.append(alone.logits(photos))
    np.testing.assert_allclose(predictor.logits(photos), np.mean(one_by_one, axis=0), atol=1e-6)


def test_a_mirrored_photo_gives_the_same_logits_with_flips(folder: Path) -> None:
    predictor = load_bundle(folder)
    square = [photo[:30, :30] for photo in _photos(2)]
    mirrored = [np.ascontiguousarray(photo[:, ::-1]) for photo in square]
    np.testing.assert_allclose(predictor.logits(square, flip_tta=True), predictor.logits(mirrored, True), atol=1e-5)
    assert np.abs(predictor.logits(square) - predictor.logits(mirrored)).max() > 1e-4


def test_the_same_winner_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = exported_folder(tmp_path, sizes=(32, 48, 32))
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_onnx_takes_any_batch_and_agrees(folder: Path) -> None:
    predictor = load_bundle(folder)
    session = onnxruntime.InferenceSession((folder / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["images_32", "images_48"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    batches = {size: torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8) for size in predictor.sizes}
    logits, probabilities = session.run(None, {f"images_{size}": batch.numpy() for size, batch in batches.items()})
    np.testing.assert_allclose(logits, predictor.batch_logits(batches), atol=1e-4)
    np.testing.assert_allclose(probabilities, softmax(logits), atol=1e-6)


def test_weights_beyond_what_one_file_holds_say_so(folder: Path) -> None:
    exported = export_onnx(load_bundle(folder), limit_bytes=1000)
    assert exported.data is None
    assert "not made" in exported.note


def test_a_network_that_disagrees_with_its_trace_is_not_kept(folder: Path) -> None:
    predictor = load_bundle(folder)

    class Fickle(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            # a branch on the batch size, which a trace freezes
            value = images.mean(dim=(2, 3))
            column = value[:, :1] * (100.0 if len(images) == 5 else 1.0) + 1
            return column.expand(-1, len(CLASSES))

    fickle = type(predictor)(predictor.classes, [replace(predictor.members[0], model=Fickle())], "cpu")
    exported = export_onnx(fickle)
    assert exported.data is None
    assert "not kept" in exported.note


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a bundle"):
        load_bundle(tmp_path)
    with pytest.raises(UserError, match="not a bundle"):
        load_bundle(tmp_path / "missing")


def test_a_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    (copy / "teacher-fold1.safetensors").unlink()
    with pytest.raises(UserError, match=r"missing: teacher-fold1\.safetensors"):
        load_bundle(copy)


def test_one_flipped_bit_is_noticed(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    weights = copy / "student-fold0.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"damaged: student-fold0\.safetensors"):
        load_bundle(copy)


def test_a_changed_index_is_noticed(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    text = (copy / "bundle.json").read_text()
    (copy / "bundle.json").write_text(text.replace("digit_0", "digit_9"))
    with pytest.raises(UserError, match="was changed"):
        load_bundle(copy)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format": "foldfleet bundle", "version": 2}', b"\xff\xfe"])
def test_an_index_of_another_kind_is_explained(folder: Path, tmp_path: Path, data: bytes) -> None:
    copy = _copy(folder, tmp_path)
    (copy / "bundle.json").write_bytes(data)
    with pytest.raises(UserError, match=r"bundle\.json is not one"):
        load_bundle(copy)


def _resealed(copy: Path, **member: object) -> None:
    """Change the first member's entry and seal the index again, as somebody with bad intentions would."""
    index = json.loads((copy / "bundle.json").read_text())
    index["members"][0] |= member
    index["digest"] = sha256(canonical_json({name: value for name, value in index.items() if name != "digest"}))
    (copy / "bundle.json").write_text(json.dumps(index))


def test_a_bundle_made_before_the_longest_side_was_noted_takes_photos_as_they_are(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    index = json.loads((copy / "bundle.json").read_text())
    del index["longest_side"]
    index["digest"] = sha256(canonical_json({name: value for name, value in index.items() if name != "digest"}))
    (copy / "bundle.json").write_text(json.dumps(index))
    photo = cv2.imencode(".png", np.random.default_rng(3).integers(0, 256, (200, 300, 3), dtype=np.uint8))[1].tobytes()
    before, now = load_bundle(copy), load_bundle(folder)
    for size in (32, 48):
        assert (before.pixels(photo)[size] == EvaluationTransform(size)(decode(photo, size))).all()
        assert (before.pixels(photo)[size] != now.pixels(photo)[size]).any()


def test_a_file_outside_the_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    _resealed(copy, file="../secret.safetensors")
    with pytest.raises(UserError, match="no bundle has"):
        load_bundle(copy)


def test_a_model_that_this_timm_lacks(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    _resealed(copy, architecture="net_of_the_future")
    with pytest.raises(UserError, match="has no model 'net_of_the_future'"):
        load_bundle(copy)


def test_weights_of_another_network(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    _resealed(copy, architecture="test_resnet")
    with pytest.raises(UserError, match="does not fit test_resnet"):
        load_bundle(copy)


def test_only_the_winner_is_exported(store: Store, cache: Cache) -> None:
    members = [trained_member(store, "teacher/fold0", (0,), 32), trained_member(store, "teacher/fold1", (1,), 32)]
    search = search_result(store, [members[1]])
    work = work_for(bundle_task(search, members), store, cache)
    result = run_bundle(bundle_task(search, members), work)
    names = {name for name in result.blobs if name.endswith(".safetensors")}
    assert names == {"file:teacher-fold1.safetensors"}
    assert any("teacher/fold1" in report.note for report in work.reporter.reports)  # type: ignore[attr-defined]
