"""Many small jobs over a pool of fresh processes, the same on every system."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType
from typing import Any, TypeVar

from shared_store.errors import UserError

Answer = TypeVar("Answer")

POOL_PAYS_SECONDS = 10.0
"""Work left for one process from which on starting others pays: each costs a second or more to start."""
_JOBS_AT_ONCE = 8  # per message to a process


def pooled(
    work: Callable[..., Answer],
    jobs: Sequence[tuple[Any, ...]],
    processes: int,
    pool_pays_seconds: float = POOL_PAYS_SECONDS,
) -> Iterator[Answer]:
    """`work(*job)` of each job, in order. Begins in this process, and starts `processes` others once the pace is known.

    UserError when one of them dies. The answers do not depend on who gives them.
    """
    worked_seconds = 0.0
    for done, job in enumerate(jobs):
        left = len(jobs) - done
        if processes > 1 and done >= _JOBS_AT_ONCE and worked_seconds / done * left > pool_pays_seconds:
            yield from _by_others(work, jobs[done:], processes)
            return
        start = time.perf_counter()
        answer = work(*job)
        worked_seconds += time.perf_counter() - start
        yield answer


def _by_others(work: Callable[..., Answer], jobs: Sequence[tuple[Any, ...]], processes: int) -> Iterator[Answer]:
    assert work.__module__ != "__main__", f"{work.__name__} must live in a module that other processes can import"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_process) as pool:
        try:
            with without_main():  # `map` starts every process at once
                answers = pool.map(work, *zip(*jobs, strict=True), chunksize=_JOBS_AT_ONCE)
            yield from answers
        except BrokenProcessPool as error:
            raise UserError(
                "a process that handles photos died",
                where=f"{work.__name__}, {processes} processes",
                mend="most likely memory ran out: use fewer processes, or remove the largest photos",
            ) from error


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Hide the running script from processes being started: each would run its imports, torch and Ray among them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_process() -> None:
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)
