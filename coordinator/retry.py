"""How a task that ended without a result goes on: again, and when, or never, and why. Pure.

Budgets are apart by kind of failure:

    stopped        again at once
    lost           again, with a growing delay; only losses in a row without a new commit count
    crashed        `crashes` tries in all
    nan            once more from the last commit
    store          while it is down or full, with a growing delay; only such ends in a row without a new commit count
    out of memory  never: less memory means another recipe, and that is the person's to choose
    bad input      never, nor a store that is wrong in another way: only the person can mend it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workers.tasks import Failure, Outcome, Task, TrainTask

LONGEST_DELAY_SECONDS = 60.0
_FAILURES_IN_A_ROW = 3
_TASKS_IN_A_ROW = 2


GOES_ON = (Failure.STOPPED, Failure.LOST, Failure.PREEMPTED)  # ends after which a task goes on as if nothing had been
ABOUT_MACHINES = (Failure.OUT_OF_MEMORY, Failure.CRASHED, Failure.HUNG)  # ends that say where not to try again
AGAINST_MACHINE = (Failure.CRASHED, Failure.HUNG)  # ends that count against the machine, until a task is done there


@dataclass(frozen=True)
class Budgets:
    """How many attempts of each kind may fail before a task is given up."""

    crashes: int = 3
    nans: int = 2
    barren_losses: int = 8  # losses in a row without a new commit
    outages: int = 8  # times in a row, without a new commit, that the store was down or full


@dataclass(frozen=True)
class Needs:
    """What a task asks of a machine."""

    memory_gb: float = 0.0
    system: str = ""  # empty: any
    label: str = ""  # empty: any


@dataclass(frozen=True)
class Rules:
    """What the person set about placing and trying again."""

    budgets: Budgets = Budgets()
    pins: Mapping[str, str] = field(default_factory=dict)  # task's id -> the one machine it may run on
    needs: Mapping[str, Needs] = field(default_factory=dict)  # by task's id; none: anything goes
    hang_seconds: float = 3600.0  # without a sign of life an attempt is ended


@dataclass(frozen=True)
class Ended:
    """One attempt that is over: how, when, and whether it left a new commit."""

    outcome: Outcome
    at: float  # seconds, on the ledger's clock
    committed: bool = False
    machine: str = ""
    micro_batch: int | None = None  # that the coordinator asked for
    memory_gb: float | None = None  # of the slot it ran in


@dataclass(frozen=True)
class Verdict:
    """Try again, not before `not_before` on the ledger's clock; or give up, and `why` says so to people."""

    again: bool
    not_before: float = 0.0
    why: str = ""


def judge(task: Task, history: Sequence[Ended], budgets: Budgets) -> Verdict:
    """What to do about `task`, whose attempts so far ended as in `history` (oldest first, none of them done)."""
    last = history[-1]
    failure = last.outcome.failure
    assert failure is not None, f"{task.name}: nothing to judge, attempt {last.outcome.attempt} is done"
    if failure in (Failure.LOST, Failure.PREEMPTED, Failure.HUNG):
        return _unless_barren(task, history, budgets.barren_losses)
    if failure is Failure.STORE and last.outcome.transient:
        return _unless_barren(task, history, budgets.outages)
    same = sum(ended.outcome.failure is failure for ended in history)
    if failure is Failure.STOPPED or (failure is Failure.NAN and same < budgets.nans):
        return Verdict(True, last.at)
    if failure is Failure.CRASHED and same < budgets.crashes:
        return Verdict(True, last.at + delay_seconds(same))
    return Verdict(False, why=_why(task, f"{same} times: " if same > 1 else "", last.outcome))


def quarantine(failures: Sequence[Outcome]) -> str | None:
    """Why a machine should take nothing until it passes a probe; None: it may go on.

    `failures`: its ends in a row that count against it. Three ends of one task say more about the task.
    """
    if len(failures) < _FAILURES_IN_A_ROW or len({outcome.task for outcome in failures}) < _TASKS_IN_A_ROW:
        return None
    last = failures[-1]
    return f"{len(failures)} failures in a row, the last: {last.failure}, {last.what}".rstrip(", ")


def delay_seconds(times: int) -> float:
    """1, 2, 4 ... seconds after the first, second, third failure, a minute at most."""
    return min(2.0 ** min(times - 1, 16), LONGEST_DELAY_SECONDS)


def smaller_micro_batch(batch_size: int, micro_batch: int | None) -> int | None:
    """The largest micro-batch below the present one that divides the batch; None below 1."""
    present = batch_size if micro_batch is None else micro_batch
    return next((size for size in range(present - 1, 0, -1) if batch_size % size == 0), None)


def _unless_barren(task: Task, history: Sequence[Ended], budget: int) -> Verdict:
    """Again, later and later, unless it ended like this `budget` times in a row without a new commit."""
    last, barren = history[-1], 0
    for ended in reversed(history):
        if ended.outcome.failure is not last.outcome.failure or ended.committed:
            break
        barren += 1
    if barren < budget:
        return Verdict(True, last.at + delay_seconds(max(barren, 1)))
    return Verdict(False, why=_why(task, f"{barren} times in a row without a new commit: ", last.outcome))


def _mend(task: Task, failure: Failure) -> str:
    """What to try, where the outcome itself does not say it."""
    match failure:
        case Failure.NAN:
            return "lower recipe.learning_rate, or set recipe.precision to float32"
        case Failure.OUT_OF_MEMORY:
            return _less_memory(task)
        case Failure.LOST:
            return "look into the machine's system log: a process that ends like this was mostly killed for memory"
        case _:
            return ""


def _less_memory(task: Task) -> str:
    if not isinstance(task, TrainTask):
        return "run fewer folds at once with fleet.slots, or use a machine with more memory"
    smaller = smaller_micro_batch(task.recipe["batch_size"], task.recipe["micro_batch"])
    if smaller is None:
        return "lower recipe.image_size, choose a smaller recipe.model, or use a card with more memory"
    return (
        f"set recipe.micro_batch to {smaller}: gradients still add up to batch_size {task.recipe['batch_size']}"
        " (a new recipe, so folds already trained are trained again)"
    )


def _why(task: Task, story: str, outcome: Outcome) -> str:
    """One text for people: what, where and how to mend it, as far as they are known."""
    assert outcome.failure is not None
    mend = outcome.mend or _mend(task, outcome.failure)
    lines = [f"{task.name}: {outcome.failure}, {story}{outcome.what}".rstrip(", :")]
    lines += [f"  where: {outcome.where}"] if outcome.where else []
    lines += [f"  mend:  {mend}"] if mend else []
    return "\n".join(lines)
