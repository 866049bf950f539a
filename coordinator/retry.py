"""How a task that ended without a result goes on: again, and when, or never, and why. Pure.

Budgets are apart by kind of failure:

    stopped        again at once
    preempted      again at once, any number of times: it says nothing about the task
    lost           again, with a growing delay; only losses in a row without a new commit count, two on one machine
                   against that
    hung           `hangs` tries in all, with a growing delay
    crashed        `crashes` tries in all; the same crash on two machines is the task's own fault
    nan            once more from the last commit
    store          while it is down or full, with a growing delay; only such ends in a row without a new commit count
    out of memory  with a smaller micro-batch (fit.py) down to one image, then on larger cards, `cards` in all
    bad input      never, nor a store that is wrong in another way: only the person can mend it
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.variants import recipe_of, section_of
from workers.footprint import Footprint
from workers.tasks import Failure, Outcome, Task, TrainTask

LONGEST_DELAY_SECONDS = 60.0
SETTLE_SECONDS = 60.0  # machines of one cluster come one after the other, as their probes end
_FAILURES_IN_A_ROW = 3
_TASKS_IN_A_ROW = 2
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][^\s'\",:;()]+)+")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")

GOES_ON = (Failure.STOPPED, Failure.LOST, Failure.PREEMPTED)  # ends after which a task goes on as if nothing had been
AGAINST_MACHINE = (Failure.CRASHED, Failure.HUNG, Failure.LOST)  # ends on a machine that is here, until one is well


@dataclass(frozen=True)
class Budgets:
    """How many attempts of each kind may fail before a task is given up."""

    crashes: int = 3
    nans: int = 2
    barren_losses: int = 8  # losses in a row without a new commit
    outages: int = 60  # times in a row, without a new commit, that the store was down or full: about two hours
    hangs: int = 3
    cards: int = 3  # that were too small even for the smallest micro-batch


@dataclass(frozen=True)
class Needs:
    """What a task asks of a machine."""

    memory_gb: float = 0.0
    system: str = ""  # empty: any
    label: str = ""  # empty: any
    footprint: Footprint | None = None  # what it takes of a card; None: not reckoned, or the person said what it needs


@dataclass(frozen=True)
class Rules:
    """What the person set about placing and trying again."""

    budgets: Budgets = Budgets()
    pins: Mapping[str, str] = field(default_factory=dict)  # task's id -> the one machine it may run on
    needs: Mapping[str, Needs] = field(default_factory=dict)  # by task's id; none: anything goes
    hang_seconds: float = 3600.0  # without a sign of life an attempt is ended
    settle_seconds: float = SETTLE_SECONDS  # from a machine that joins until all that were there may have joined


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
    if failure in (Failure.STOPPED, Failure.PREEMPTED):
        return Verdict(True, last.at)
    if failure is Failure.LOST:
        return _unless_barren(task, history, budgets.barren_losses)
    if failure is Failure.STORE and last.outcome.transient:
        return _unless_barren(task, history, budgets.outages)
    if failure is Failure.OUT_OF_MEMORY:
        return _unless_too_small(task, history, budgets.cards)
    if failure is Failure.CRASHED and (elsewhere := _same_crash(history)) is not None:
        story = f"in the same way on {elsewhere} and {last.machine}, so it is the fold's own fault: "
        return Verdict(False, why=_why(task, story, last.outcome))
    same = sum(ended.outcome.failure is failure for ended in history)
    if same < {Failure.CRASHED: budgets.crashes, Failure.HUNG: budgets.hangs}.get(failure, 0):
        return Verdict(True, last.at + delay_seconds(same))
    if failure is Failure.NAN and same < budgets.nans:
        return Verdict(True, last.at)
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


def next_micro_batch(task: Task, short: Sequence[Ended]) -> int | None:
    """The largest micro-batch below all with which a card ran `short` of memory; None: there is none to try.

    What is no training has none, and a number that the person set is never lowered.
    """
    if not isinstance(task, TrainTask) or task.recipe["micro_batch"] is not None:
        return None
    batch = task.recipe["batch_size"]
    least = min(batch if end.micro_batch is None else end.micro_batch for end in short)
    return smaller_micro_batch(batch, least)


def too_small(task: Task, history: Sequence[Ended]) -> list[Ended]:
    """The ends that ran out of memory where nothing smaller could be tried: one for every card that is too small."""
    short = [end for end in history if end.outcome.failure is Failure.OUT_OF_MEMORY]
    return [end for end in short if next_micro_batch(task, [end]) is None]


def cards_text(task: Task, small: Sequence[Ended]) -> str:
    """The cards that were too small, for people: "with 1 image at a time on attic (4 GB), box (8 GB)"."""
    names = [end.machine + (f" ({end.memory_gb:g} GB)" if end.memory_gb is not None else "") for end in small]
    one = "with 1 image at a time " if isinstance(task, TrainTask) and task.recipe["micro_batch"] is None else ""
    return f"{one}on {', '.join(dict.fromkeys(names))}"


def less_memory(task: Task) -> str:
    """How a person makes a task need less memory."""
    if not isinstance(task, TrainTask):
        return "run fewer folds at once with fleet.slots, or use a machine with more memory"
    batch, micro = task.recipe["batch_size"], task.recipe["micro_batch"]
    section = section_of(recipe_of(task.name))
    smaller = None if micro is None else smaller_micro_batch(batch, micro)
    if smaller is None:
        return f"lower {section}.image_size, choose a smaller {section}.model, or use a card with more memory"
    return (
        f"set {section}.micro_batch to {smaller}, or to null, which finds what fits: gradients still add up to"
        f" batch_size {batch} (a new recipe, so folds already trained are trained again)"
    )


def _unless_too_small(task: Task, history: Sequence[Ended], cards: int) -> Verdict:
    """Again at once: smaller where that is possible, else on a larger card, unless `cards` were too small."""
    last, small = history[-1], too_small(task, history)
    if next_micro_batch(task, [last]) is not None or len(small) < cards:
        return Verdict(True, last.at)
    return Verdict(False, why=_why(task, f"{cards_text(task, small)}: ", last.outcome))


def _same_crash(history: Sequence[Ended]) -> str | None:
    """Another machine that a task crashed on in the same way as it did last, if there is one."""
    last = history[-1]
    said = _without_particulars(last.outcome.what)
    for end in history[:-1]:
        crashed = end.outcome.failure is Failure.CRASHED and end.machine != last.machine
        if crashed and said and _without_particulars(end.outcome.what) == said:
            return end.machine
    return None


def _without_particulars(what: str) -> str:
    """What an error says, without the addresses, paths and numbers in which two machines differ."""
    return " ".join(_NUMBER.sub("#", _PATH.sub("PATH", what)).split())


def _unless_barren(task: Task, history: Sequence[Ended], budget: int) -> Verdict:
    """Again, later and later, unless it ended like this `budget` times in a row without a new commit."""
    last, barren = history[-1], 0
    for ended in reversed([ended for ended in history if ended.outcome.failure is not Failure.PREEMPTED]):
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
            return less_memory(task)
        case Failure.HUNG:
            return "look at the machine: what hangs mostly waits for a disk, a network drive or a driver"
        case Failure.LOST:
            return "look into the machine's system log: a process that ends like this was mostly killed for memory"
        case _:
            return ""


def _why(task: Task, story: str, outcome: Outcome) -> str:
    """One text for people: what, where and how to mend it, as far as they are known."""
    assert outcome.failure is not None
    mend = outcome.mend or _mend(task, outcome.failure)
    lines = [f"{task.name}: {outcome.failure}, {story}{outcome.what}".rstrip(", :")]
    lines += [f"  where: {outcome.where}"] if outcome.where else []
    lines += [f"  mend:  {mend}"] if mend else []
    return "\n".join(lines)
