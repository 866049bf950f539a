"""Many small jobs over a pool of fresh processes, the same on every system."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2

from shared_store.errors import UserError

Answer = TypeVar("Answer")

_JOBS_AT_ONCE = 8  # per message to a process


def pooled(work: Callable[..., Answer], jobs: Sequence[tuple[Any, ...]], processes: int) -> Iterator[Answer]:
    """`work(*job)` of each job, in order, from a pool of fresh processes; in this process if `processes` is 1."""
    if processes <= 1 or len(jobs) <= _JOBS_AT_ONCE:
        yield from (work(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # the same on every system
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_process) as pool:
        try:
            yield from pool.map(work, *zip(*jobs, strict=True), chunksize=_JOBS_AT_ONCE)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that handles photos died",
                where=f"{work.__name__}, {processes} processes",
                mend="most likely memory ran out: use fewer processes, or remove the largest photos",
            ) from error


def _start_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)
