"""How large contents travel: cut into parts as the other side wants them, several of them under way at once."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from shared_store.backend import Content

T = TypeVar("T")


def cut(content: Content, part_bytes: int) -> Iterator[io.BytesIO]:
    """The same bytes as files in memory of exactly `part_bytes`, but for the last. Each can be read again."""
    part, missing = io.BytesIO(), part_bytes
    for piece in content:
        rest = piece
        while len(rest) >= missing:
            part.write(rest[:missing])
            yield _rewound(part)
            rest, part, missing = rest[missing:], io.BytesIO(), part_bytes
        missing -= part.write(rest)
    if missing < part_bytes:
        yield _rewound(part)


def _rewound(file: io.BytesIO) -> io.BytesIO:
    file.seek(0)
    return file


def in_order(jobs: Iterable[Callable[[], T]], at_once: int) -> Iterator[T]:
    """What the jobs return, in their order, each in a thread; the next job is asked for when fewer than `at_once` run.

    When one raises, or the reading ends early, those under way are waited for and no other begins.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) == at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
