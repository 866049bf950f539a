"""What the person sets about machines reaches the folds that are meant, and a name that nothing has is refused."""

from __future__ import annotations

import pytest

from coordinator.config import Experiment, FleetSection, parse, to_yaml
from coordinator.graph import Graph, Photos, build
from coordinator.placing import check_placing, rules_of
from coordinator.retry import SETTLE_SECONDS, Needs
from shared_store.errors import UserError
from workers.footprint import Footprint, TrainingMemory

TWO = Experiment.model_validate({"recipes": {"b4": {}, "small": {"image_size": 64}}, "folds": {"count": 3}})
GRAPH = build(TWO, Photos("snapshot", "0" * 64), ("cat", "dog"), None)


def by_name(graph: Graph, of: dict[str, object]) -> dict[str, object]:
    return {graph.tasks[task].name: value for task, value in of.items()}


def test_a_pin_holds_the_folds_that_it_names_and_the_longer_name_wins() -> None:
    settings = FleetSection(pin={"fold1": "attic", "student/b4/fold1": "desk"}, hang_minutes=2)
    rules = rules_of(settings, GRAPH)
    assert by_name(GRAPH, dict(rules.pins)) == {
        "teacher/b4/fold1": "attic",
        "teacher/small/fold1": "attic",
        "student/b4/fold1": "desk",
        "student/small/fold1": "attic",
    }
    assert rules.hang_seconds == 120 and rules.needs == {}


def test_a_recipe_needs_what_is_said_of_it_and_else_what_is_said_of_all() -> None:
    given = {"fleet": {"needs": {"all": {"system": "linux", "memory_gb": 4}, "b4": {"memory_gb": 10}}}}
    settings = parse(to_yaml(Experiment.model_validate(given)).decode(), "as the run keeps it").fleet
    needs = by_name(GRAPH, dict(rules_of(settings, GRAPH).needs))
    assert needs["student/b4/fold0"] == Needs(10, "linux") and needs["teacher/small/fold2"] == Needs(4, "linux")
    assert len(needs) == 12


def test_what_was_reckoned_counts_for_its_recipe_until_the_person_says_what_it_needs() -> None:
    memory = TrainingMemory(400, 3100, 100, 1000, 5, 3)
    reckoned = {"b4": Footprint(memory, memory, "auto", None)}
    needs = by_name(GRAPH, dict(rules_of(FleetSection(), GRAPH, reckoned).needs))
    assert needs["student/b4/fold0"] == Needs(footprint=reckoned["b4"]) and "teacher/small/fold0" not in needs
    said = FleetSection.model_validate({"needs": {"b4": {"memory_gb": 1}}})
    assert by_name(GRAPH, dict(rules_of(said, GRAPH, reckoned).needs))["student/b4/fold0"] == Needs(1)


def test_on_a_cluster_a_larger_card_may_come_and_on_this_machine_alone_none_will() -> None:
    assert rules_of(FleetSection(), GRAPH).settle_seconds == 0
    assert rules_of(FleetSection(address="auto"), GRAPH).settle_seconds == SETTLE_SECONDS


@pytest.mark.parametrize(
    ("settings", "where", "known"),
    [
        ({"pin": {"fold7": "attic"}}, "fleet.pin: fold7", "student/small/fold2"),
        ({"pin": {"label/fold0": "attic"}}, "fleet.pin: label/fold0", "teacher/b4/fold0"),
        ({"needs": {"b5": {"memory_gb": 1}}}, "fleet.needs: b5", "all, b4, small"),
    ],
)
def test_a_name_that_the_run_does_not_have_is_refused_with_those_it_has(
    settings: dict[str, object], where: str, known: str
) -> None:
    section = FleetSection.model_validate(settings)
    with pytest.raises(UserError) as caught:
        check_placing(section, GRAPH)
    assert caught.value.where == where and known in caught.value.mend


def test_a_wrong_key_of_a_need_is_named_with_the_right_one() -> None:
    with pytest.raises(UserError, match=r"unknown key fleet\.needs\.all\.memory") as caught:
        parse("fleet: {needs: {all: {memory: 3}}}", "run.yaml")
    assert "memory_gb" in caught.value.mend
