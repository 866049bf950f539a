"""Which machine is let go, by when, and that the head is never one of them."""

from __future__ import annotations

import pytest

from coordinator.roster import Member
from jobs.drain import _found, _seconds
from shared_store.errors import UserError

HEAD = Member("n1", "m1", "tower", "10.0.0.1", alive=True, head=True)
ATTIC = Member("n2", "m2", "attic", "10.0.0.2", alive=True)
ALSO_ATTIC = Member("n3", "m3", "attic", "10.0.0.3", alive=True)


@pytest.mark.parametrize("machine", ["attic", "10.0.0.2"])
def test_a_machine_is_found_by_name_and_by_address(machine: str) -> None:
    assert _found(machine, [HEAD, ATTIC], "tower:6379") == ATTIC


@pytest.mark.parametrize("machine", ["tower", "10.0.0.1"])
@pytest.mark.parametrize("head", ["10.0.0.1:6379", "tower:6379", "tower.lan:6379"])
def test_the_head_is_not_let_go_however_it_is_called(machine: str, head: str) -> None:
    with pytest.raises(UserError, match="cannot leave it"):
        _found(machine, [HEAD, ATTIC], head)


@pytest.mark.parametrize(("machine", "what"), [("cellar", "no machines"), ("attic", "2 machines")])
def test_a_name_of_none_or_of_several_is_refused_with_those_that_there_are(machine: str, what: str) -> None:
    with pytest.raises(UserError, match=f"{what} of the fleet are called {machine}") as caught:
        _found(machine, [HEAD, ATTIC, ALSO_ATTIC], "tower:6379")
    assert "attic (10.0.0.2), attic (10.0.0.3)" in caught.value.mend


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30.0), ("10m", 600.0), ("1.5h", 5400.0)])
def test_a_time_is_written_with_its_unit(text: str, seconds: float) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["10", "m", "-5m", "10 m", "1d"])
def test_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no time"):
        _seconds(text)
