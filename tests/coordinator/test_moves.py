"""What a move costs: by the link at first, then as measured, and only moves count."""

from __future__ import annotations

from coordinator.moves import Moves


def moved(moves: Moves, machine: str, seconds: float) -> None:
    """A fold that ran elsewhere makes its first step on `machine` after so long."""
    moves.ran("fold", "elsewhere")
    moves.took("fold", machine, seconds)


def test_a_slow_link_makes_a_move_dearer_before_one_was_made() -> None:
    moves = Moves()
    moves.linked("near", 100.0)
    moves.linked("far", 1.0)
    moves.linked("broken", 0.0)
    assert moves.seconds("near") < moves.seconds("far") and moves.seconds("broken") == moves.seconds("unknown")


def test_moves_are_measured_for_a_machine_and_for_the_fleet() -> None:
    moves = Moves()
    for seconds in (40.0, 50.0, 900.0):
        moved(moves, "box", seconds)
    assert moves.seconds("box") == 50.0 and moves.seconds("attic") == 50.0
    moved(moves, "attic", 10.0)
    assert moves.seconds("attic") == 10.0 and moves.seconds("box") == 50.0


def test_going_on_where_it_was_is_no_move_and_no_time_is_below_nothing() -> None:
    moves = Moves()
    moves.ran("fold", "box")
    moves.took("fold", "box", 5.0)
    assert moves.seconds("box") == Moves().seconds("box")
    moved(moves, "box", -3.0)
    assert moves.seconds("box") == 0.0
