"""What is wrong with which machine is named, with what to do, and nothing else is."""

from __future__ import annotations

import pytest
from examined_support import GTX_1060, RECIPE, RTX_2070, SOUND, VERSIONS

from coordinator.checks import Answer, Expected, judge
from coordinator.findings import Finding, State
from workers.examined import Card, Examined, Holder, Reached, StoreFacts, Trained
from workers.footprint import Footprint, TrainingMemory

HEAD = SOUND.model_copy(update={"host": "head"})
ON_A_CARD = (Trained(recipe="", device="cuda:0", bits=16, step_seconds=0.1, image_seconds=0.01),)
NEEDS = TrainingMemory(300.0, 5000.0, 80.0, 1700.0, 1.0, 3)


def wrong(examined: Examined, footprints: dict[str, Footprint] | None = None, **answer: object) -> list[Finding]:
    """What is not well on one machine, beside a head on which all is."""
    values = {"asked_at": 999.0, "answered_at": 1001.0, "in_fleet": True} | answer
    answers = [Answer("head", HEAD, 999.0, 1001.0, in_fleet=True), Answer("attic", examined, **values)]  # type: ignore[arg-type]
    found = judge(answers, Expected(HEAD, {"": RECIPE}, footprints or {}))
    assert {one.state for one in found if one.machine == "head"} == {State.OK}
    return [one for one in found if one.machine == "attic" and one.state is not State.OK]


def with_card(card: Card, **changes: object) -> Examined:
    return SOUND.model_copy(update={"cards": (card,), "trained": ON_A_CARD} | changes)


def test_where_all_is_well_every_check_says_so_and_asks_for_nothing() -> None:
    found = judge([Answer("head", HEAD, 999.0, 1001.0, in_fleet=True)] * 2, Expected(HEAD, {"": RECIPE}))
    assert all(one.state is State.OK and one.found and not one.mend for one in found)
    checks = list(dict.fromkeys(one.check for one in found))
    assert checks == [
        *("Python", "ray", "torch", "packages", "foldfleet", "fleet", "card", "training", "disk", "store"),
        *("ports", "clock"),
    ]


@pytest.mark.parametrize(
    ("changes", "check", "state", "words"),
    [
        ({"versions": VERSIONS | {"python": "3.12.1"}}, "Python", State.FAIL, "3.12.1, the head has 3.11.7"),
        ({"versions": VERSIONS | {"ray": "2.50.0"}}, "ray", State.FAIL, "2.50.0, the head has 2.60.0"),
        ({"versions": VERSIONS | {"torch": "2.9.0+cu126"}}, "torch", State.FAIL, "2.9.0+cu126, the head has 2.14.1"),
        ({"versions": VERSIONS | {"timm": "1.0.20"}}, "packages", State.WARN, "timm 1.0.20 (head 1.0.31)"),
        ({"code": "ffff0000"}, "foldfleet", State.WARN, "other code than the head's"),
        ({"free_disk_gb": {"/tmp": 40.0, "/cache": 0.2}}, "disk", State.FAIL, "0.2 GB free at /cache"),
        ({"free_disk_gb": {"/tmp": 3.0}}, "disk", State.WARN, "3.0 GB free at /tmp"),
        ({"store": StoreFacts(failure="no route", mend="plug it in")}, "store", State.FAIL, "no route"),
        ({"store": StoreFacts(write_mb_per_second=0.2)}, "store", State.WARN, "commits will be late"),
        ({"unix_seconds": 1000.0 + 3600}, "clock", State.FAIL, "60 minutes fast"),
        ({"unix_seconds": 1000.0 - 100}, "clock", State.WARN, "99 s slow"),
        ({"proxies": {"http_proxy": "http://p:3128"}}, "proxy", State.WARN, "http_proxy=http://p:3128"),
        ({"reached": (Reached(door="10.0.0.9:40001", failure="refused"),)}, "ports", State.FAIL, "of 10.0.0.9"),
        ({"reached": (Reached(door="10.0.0.9:40001", seconds=0.5),)}, "ports", State.WARN, "500 ms"),
        (
            {"trained": (Trained(recipe="", device="cpu", bits=32, failure="no operator"),)},
            "training",
            State.FAIL,
            "resnet18 at 64 px, batch 8 on cpu: no operator",
        ),
    ],
)
def test_one_fault_is_named_once_with_what_to_do(
    changes: dict[str, object], check: str, state: State, words: str
) -> None:
    (one,) = wrong(SOUND.model_copy(update=changes))
    assert (one.check, one.state) == (check, state)
    assert words in one.found and one.mend


def test_a_clock_is_not_hidden_by_how_long_the_examination_takes() -> None:
    fast = SOUND.model_copy(update={"unix_seconds": 1000.0 + 90, "took_seconds": 120.0})
    (one,) = wrong(fast, asked_at=999.0, answered_at=1121.0)
    assert (one.check, one.found) == ("clock", "89 s fast")
    assert wrong(fast.model_copy(update={"unix_seconds": 1000.0}), asked_at=999.0, answered_at=1121.0) == []


def test_a_store_in_which_several_writers_may_win_is_no_failure() -> None:
    store = StoreFacts(write_mb_per_second=80.0, read_mb_per_second=80.0, not_exclusive="2 of 8 writers won")
    (one,) = wrong(SOUND.model_copy(update={"store": store}))
    assert one.state is State.WARN and "coordinator alone" in one.mend


def test_another_build_of_the_same_torch_does() -> None:
    other = {"torch": "2.14.1+cu126", "torchvision": "0.29.1+cu126"}  # what a GTX 10xx is told to install
    assert wrong(SOUND.model_copy(update={"versions": VERSIONS | other})) == []


def test_a_machine_that_does_not_answer_is_named_with_why() -> None:
    found = judge([Answer("attic", None, failure="SSH: no route", mend="switch it on")], Expected())
    assert found == [Finding("attic", "answer", State.FAIL, "SSH: no route", "switch it on")]


def test_a_machine_that_cannot_be_in_the_fleet_for_its_python_is_told_only_that() -> None:
    old = SOUND.model_copy(update={"versions": VERSIONS | {"python": "3.12.1"}})
    assert [one.check for one in wrong(old, in_fleet=False)] == ["Python"]
    assert [one.check for one in wrong(SOUND, in_fleet=False)] == ["fleet"]


def test_steps_that_fail_for_a_wrong_torch_are_no_second_fault() -> None:
    failed = (Trained(recipe="", device="cpu", bits=32, failure="torchvision::nms does not exist"),)
    old = SOUND.model_copy(update={"versions": VERSIONS | {"torch": "2.9.0"}, "trained": failed})
    assert [one.check for one in wrong(old)] == ["torch"]


def test_a_card_that_the_wheel_has_no_code_for_is_named_with_the_very_command() -> None:
    failed = (Trained(recipe="", device="cuda:0", bits=32, failure="no kernel image is available"),)
    (one,) = wrong(with_card(GTX_1060, trained=failed))
    assert (one.check, one.state) == ("card", State.FAIL)
    assert "sm_61" in one.found and "CUDA 13.0" in one.found
    assert '"torch==2.14.1+cu126" "torchvision==0.29.1+cu126"' in one.mend


@pytest.mark.parametrize(
    ("card", "changes", "words"),
    [
        (RTX_2070, {"torch_cuda": None, "torch_architectures": ()}, "a build for processors alone"),
        (RTX_2070, {"trained": SOUND.trained}, "does not see"),
        (Card(0, "u", "RTX 2070", "7.5", "550.54", 8.6, 0.0, None), {}, "driver 550.54 is too old"),
        (Card(0, "u", "RTX 2070", "", "440.33.01", 8.6, 0.0, None), {}, "driver 440.33.01 is too old"),
        (Card(0, "u", "Tesla K80", "3.7", "580.1", 12.0, 0.0, None), {}, "sm_37"),
        (Card(0, "u", "of 2030", "15.0", "980.1", 96.0, 0.0, None), {"torch_architectures": ("sm_90",)}, "sm_150"),
    ],
)
def test_a_card_that_torch_cannot_use_is_named(card: Card, changes: dict[str, object], words: str) -> None:
    (one,) = wrong(with_card(card, **changes))
    assert one.check == "card" and one.state is State.FAIL and words in one.found and one.mend


def test_cards_that_torch_has_code_for_do() -> None:
    assert wrong(with_card(RTX_2070)) == []
    newer = Card(0, "u", "of next year", "9.5", "600.1", 24.0, 0.0, None)
    assert wrong(with_card(newer)) == []  # code for compute_90 is translated for it


def test_a_card_that_torch_does_not_see_beside_another_is_told() -> None:
    second = Card(1, "v", "RTX 2070", "7.5", "580.95", 8.6, 0.1, 40.0)
    (one,) = wrong(SOUND.model_copy(update={"cards": (RTX_2070, second), "trained": ON_A_CARD}))
    assert one.state is State.WARN and one.found == "torch sees 1 of 2 cards" and "CUDA_VISIBLE_DEVICES" in one.mend


def test_a_card_that_only_torch_tells_of_is_no_missing_card() -> None:
    alone = SOUND.model_copy(update={"trained": ON_A_CARD})
    (one,) = (one for one in judge([Answer("attic", alone)], Expected(None, {"": RECIPE})) if one.check == "card")
    assert one.state is State.OK and "torch trains on cuda:0" in one.found


def test_who_holds_a_cards_memory_is_named() -> None:
    held = Card(0, "u", "RTX 2070", "7.5", "580.9", 8.6, 3.0, 40.0, (Holder(77, "blender", 2.9),))
    (one,) = wrong(with_card(held))
    assert (one.check, one.state) == ("card memory", State.WARN)
    assert "5.6 of 8.6 GB free" in one.found and "blender (pid 77, 2.9 GB)" in one.found


def test_a_recipe_that_no_card_has_the_memory_for_is_told_with_what_would_fit() -> None:
    small = Card(0, "u", "GTX 1650", "7.5", "580.9", 4.0, 0.0, 40.0)
    whole = Footprint(NEEDS, TrainingMemory(300.0, 2500.0, 80.0, 900.0, 1.0, 3), "float32", 3)
    (one,) = wrong(with_card(small), {"": whole})
    assert (one.check, one.state) == ("card memory", State.FAIL)
    assert "does not fit" in one.found and "precision float16" in one.mend


def test_what_fits_the_card_but_not_beside_what_is_held_fails() -> None:
    held = Card(0, "u", "RTX 2070", "7.5", "580.9", 8.6, 5.0, 40.0)
    whole = Footprint(NEEDS, NEEDS, "float32", 3)
    (one,) = wrong(with_card(held), {"": whole})
    assert one.state is State.FAIL and "the driver does not name" in one.found
