"""What nvidia-smi says is understood, and where it says nothing there are no cards."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from workers.cards import Card, Holder, Run, card_of, cards, output_of

GPUS = """\
0, NVIDIA GeForce GTX 1060 6GB, 6.1, 560.35.03, 6144, 412, 61, GPU-5d41b2a6-0c11-4a3e-9d0b-1f6e2c7a8b90
1, NVIDIA GeForce RTX 2070, 7.5, 560.35.03, 8192, 8, [N/A], GPU-aa0f4c1e-77d2-4a53-b7c5-92b1d3e4f506
"""
USED_BY = """\
GPU-5d41b2a6-0c11-4a3e-9d0b-1f6e2c7a8b90, 4711, /home/ann/.venv/bin/python, 300
GPU-5d41b2a6-0c11-4a3e-9d0b-1f6e2c7a8b90, 812, C:\\Games\\One, two\\game.exe, [N/A]
"""
GTX, RTX = (line.rpartition(", ")[2] for line in GPUS.splitlines())


def says(gpus: str, used_by: str = "") -> Run:
    def run(command: Sequence[str]) -> str:
        assert command[0] == "nvidia-smi" and command[-1] == "--format=csv,noheader,nounits"
        return gpus if command[1].startswith("--query-gpu=") else used_by

    return run


def test_every_card_is_told_of_with_who_holds_its_memory() -> None:
    first, second = cards(says(GPUS, USED_BY))
    assert (first.index, first.uuid, first.name) == (0, GTX, "NVIDIA GeForce GTX 1060 6GB")
    assert (first.capability, first.driver, first.temperature_celsius) == ("6.1", "560.35.03", 61.0)
    assert first.memory_gb == pytest.approx(6.442450944) and first.used_gb == pytest.approx(0.432013312)
    python, game = first.holders
    assert (python.pid, python.program) == (4711, "/home/ann/.venv/bin/python")
    assert python.memory_gb == pytest.approx(0.3145728)
    assert game == Holder(812, "C:\\Games\\One, two\\game.exe", None)
    assert (second.uuid, second.temperature_celsius, second.holders) == (RTX, None, ())


def test_what_the_driver_does_not_say_is_none() -> None:
    line = "0, Tesla, M40, 5.2, 560.35.03, [Unknown Error], [N/A], [GPU is lost], GPU-0"
    assert cards(says(line)) == (Card(0, "GPU-0", "Tesla, M40", "5.2", "560.35.03", None, None, None),)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        'Field "compute_cap" is not a valid field to query.\n\n',
        "No devices were found\n",
    ],
)
def test_words_for_people_are_no_cards(words: str) -> None:
    assert cards(says(words, words)) == ()


@pytest.mark.parametrize(
    ("device", "shown", "index"),
    [
        ("cuda:0", None, 0),
        ("cuda:1", None, 1),
        ("cuda", None, 0),
        ("cuda:0", "1", 1),
        ("cuda:1", "1, 0", 0),
        ("cuda:0", RTX, 1),
        ("cuda:0", "GPU-aa0f", 1),
        ("cuda:1", "1", None),
        ("cuda:0", "", None),
        ("cuda:0", "7", None),
        ("cuda:0", "MIG-aa0f4c1e", None),
        ("cpu", None, None),
    ],
)
def test_a_device_is_the_card_that_its_process_is_shown(device: str, shown: str | None, index: int | None) -> None:
    card = card_of(device, shown, says(GPUS))
    assert (None if card is None else card.index) == index


@pytest.mark.parametrize(
    "command",
    [
        ["no-such-program-anywhere"],
        [sys.executable, "-c", "print('half an answer'); raise SystemExit(9)"],
    ],
    ids=["missing", "fails"],
)
def test_a_program_that_is_missing_or_fails_says_nothing(command: list[str]) -> None:
    assert output_of(command) == ""


def test_a_program_that_hangs_says_nothing() -> None:
    assert output_of([sys.executable, "-c", "import time; time.sleep(60)"], seconds=0.05) == ""


def test_what_a_program_writes_is_taken() -> None:
    assert output_of([sys.executable, "-c", "print('words')"]).strip() == "words"


def test_a_driver_that_is_too_old_to_know_the_capability_tells_of_its_cards_all_the_same() -> None:
    def run(command: Sequence[str]) -> str:
        if "compute_cap" in command[1]:
            return 'Field "compute_cap" is not a valid field to query.\n'
        return f"0, Tesla K80, 0324, 440.33.01, 11441, 0, 40, {GTX}\n" if "--query-gpu" in command[1] else ""

    (card,) = cards(run)
    assert (card.name, card.capability, card.driver, card.uuid) == ("Tesla K80", "", "440.33.01", GTX)
