"""The board: what waits stands in order, by what it fits, and what is given up takes with it what needs it."""

from __future__ import annotations

import pytest
from fake_fleet import small_graph

from coordinator.board import Board
from coordinator.entries import State
from coordinator.retry import Verdict

GRAPH = small_graph()
TEACHERS = GRAPH.named("teacher/")


def board(levels: dict[str, float] | None = None) -> Board:
    known = GRAPH.weights if levels is None else levels
    made = Board(GRAPH, lambda task: known[task], lambda task, entry: entry.task.kind)
    made.validate()
    return made


def waiting(made: Board) -> list[str]:
    return [made.by_rank[rank] for queue in made.waiting.values() for _, rank in queue]


def test_what_waits_stands_most_urgent_first_and_anew_when_levels_change() -> None:
    levels = dict(GRAPH.weights)
    made = board(levels)
    assert waiting(made) == list(TEACHERS)
    levels[TEACHERS[2]] += 5.0
    made.queue_anew(1)
    assert waiting(made) == [TEACHERS[2], *TEACHERS[:2]] and made.version == 1
    made.validate()


def test_a_task_waits_again_when_its_delay_is_over() -> None:
    made = board()
    made.move(TEACHERS[0], State.RUNNING)
    made.ended(TEACHERS[0], Verdict(True, not_before=10.0))
    made.release(9.0)
    assert TEACHERS[0] not in waiting(made)
    made.release(10.0)
    assert TEACHERS[0] in waiting(made)


def test_what_is_given_up_blocks_what_needs_it_and_says_why() -> None:
    made = board()
    made.move(TEACHERS[0], State.RUNNING)
    made.ended(TEACHERS[0], Verdict(False, why="no such model"))
    assert made.hopeless == {TEACHERS[0]: "no such model"}
    made.give_up(TEACHERS[0], "no such model")
    made.validate()
    assert not made.hopeless
    assert made.entries[GRAPH.named("predict/")[0]].reason == "needs bundle/winner, which is blocked"


def test_a_state_that_cannot_follow_is_refused_with_the_story() -> None:
    with pytest.raises(AssertionError, match="teacher/fold0"):
        board().move(TEACHERS[0], State.FAILED)
