"""What was measured on the machines is where the planner begins, on the scale of the probes."""

from __future__ import annotations

from pathlib import Path

import pytest
from examined_support import RECIPE, RTX_2070, SOUND

from coordinator.checks import Answer
from coordinator.measured import FILE, MeasuredFleet, known_machines, measured_fleet, read_measured, recipe_key
from workers.examined import StoreFacts, Trained

OTHER = RECIPE.model_copy(update={"image_size": 128})


def machine(name: str, step_seconds: float | None, probe_speed: float | None = 1.0, link: float = 50.0) -> Answer:
    trained = Trained(recipe="", device="cpu", bits=32, step_seconds=step_seconds, image_seconds=0.1)
    store = StoreFacts(write_mb_per_second=link, read_mb_per_second=link)
    update = {"machine_id": name, "trained": (trained,), "probe_speed": probe_speed, "store": store}
    return Answer(name, SOUND.model_copy(update=update))


def fleet(*answers: Answer) -> MeasuredFleet:
    return measured_fleet(answers, {"": RECIPE}, threads=2)


def test_speeds_are_as_the_recipes_steps_say_and_as_large_as_the_probes() -> None:
    # The probes say 1, 2 and 3; the recipe is a tenth of a step, twice and five times as fast there.
    speeds = fleet(machine("a", 0.1), machine("b", 0.05, 2.0), machine("c", 0.02, 3.0)).speeds([RECIPE])
    assert speeds["b"] == pytest.approx(2 * speeds["a"]) and speeds["c"] == pytest.approx(5 * speeds["a"])
    assert speeds["a"] == pytest.approx(1.0)  # the median machine's probe is believed: 10 steps a second are 1


def test_a_machine_that_did_not_try_all_recipes_has_its_probes_speed() -> None:
    found = fleet(machine("a", 0.1), machine("b", None))
    assert found.speeds([RECIPE]).keys() == {"a"} and found.speeds([RECIPE, OTHER]) == {}
    known = known_machines(found, [RECIPE])
    assert known["b"].speed is None and known["b"].link_mb_per_second == 50.0


def test_without_any_probe_there_is_no_scale() -> None:
    assert fleet(machine("a", 0.1, None)).speeds([RECIPE]) == {}


def test_what_is_kept_is_read_again_and_what_cannot_be_read_is_nothing(tmp_path: Path) -> None:
    kept, path = fleet(machine("a", 0.1)), tmp_path / FILE
    assert read_measured(tmp_path) == MeasuredFleet()
    path.parent.mkdir()
    path.write_text(kept.model_dump_json())
    assert read_measured(tmp_path) == kept
    path.write_text('{"machines": {"a": {"of": "another version"}}}')
    assert read_measured(tmp_path) == MeasuredFleet()


def test_slots_and_memory_are_those_that_a_run_would_have() -> None:
    first, second = (
        Trained(recipe="", device=f"cuda:{index}", bits=16, step_seconds=0.1, image_seconds=0.1) for index in range(2)
    )
    cards = (RTX_2070, RTX_2070)
    both, one, told = (
        Answer(name, SOUND.model_copy(update={"machine_id": name, "cards": of, "trained": trained}))
        for name, of, trained in (("c", cards, (first, second)), ("one", cards, (first,)), ("told", (), (first,)))
    )
    found = fleet(machine("a", 0.1), both, one, told).machines
    assert (found["a"].slots, found["a"].gpu, found["a"].memory_gb) == (2, False, 8.0)  # of 4 cores, 2 threads each
    assert (found["c"].slots, found["c"].gpu, found["c"].bits, found["c"].memory_gb) == (2, True, 16, 8.6)
    assert (found["one"].slots, found["one"].memory_gb) == (1, 8.6)  # the other one torch does not see
    assert (found["told"].slots, found["told"].gpu, found["told"].memory_gb) == (1, True, None)  # nvidia-smi is silent


def test_recipes_whose_steps_take_the_same_time_share_them() -> None:
    same = RECIPE.model_copy(update={"seed": 7, "epochs": 3, "checkpoint_minutes": 1.0})
    assert recipe_key(same) == recipe_key(RECIPE) != recipe_key(OTHER)
    assert recipe_key(RECIPE.model_copy(update={"checkpointing": True})) != recipe_key(RECIPE)
