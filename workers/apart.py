"""Calls done in processes of their own, so that what goes wrong in one dies with it: faults, leaks, a card's memory."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from workers.deaths import memory_kills
from workers.nursery import ANSWERS, DIED, FAILS, FORKS, TRAINS, Act, Call, tend
from workers.pool import without_main

Hear = Callable[[str, Any], None]
"""Takes what a process says before its answer: the kind, one of `workers.nursery`, and its value."""
_TAIL_BYTES = 4000
_END_SECONDS = 10.0


class DiedError(Exception):
    """The process is over and gave no answer. `said`: the end of what it wrote to stderr."""

    def __init__(self, exit_code: int | None, said: str, killed_for_memory: bool) -> None:
        super().__init__(exit_code, said, killed_for_memory)
        self.exit_code, self.said, self.killed_for_memory = exit_code, said, killed_for_memory


class Apart:
    """Where calls are done, one at a time."""

    def __init__(self, forks: bool = FORKS, loads: Sequence[str] = TRAINS) -> None:
        """`forks`: one process stays, and forks for every call; else each has a fresh one. `loads`: modules, before."""
        self._forks, self._loads = forks, loads
        self._turn = threading.Lock()
        self._sending = threading.Lock()
        self._nursery: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._at_work = False
        atexit.register(self.close)  # before multiprocessing waits for its processes

    def call(self, act: Act, hear: Hear) -> Any:
        """What `act(hands)` returns in another process. DiedError; RuntimeError when it raised something there."""
        with self._turn, contextlib.closing(_Errors()) as errors:
            killed_before = memory_kills()
            try:
                return self._answered(Call(act, errors.path), hear)
            except _OverError as over:
                raise DiedError(over.exit_code, errors.tail(), memory_kills() > killed_before) from None

    def tell(self, word: str) -> None:
        """Say something to the call at work, if there is one."""
        with self._sending, contextlib.suppress(OSError):
            if self._at_work and self._connection is not None:
                self._connection.send(word)

    def close(self) -> None:
        """End the processes."""
        with self._sending:
            nursery, connection = self._nursery, self._connection
            self._nursery = self._connection = None
        if connection is not None:
            connection.close()
        if nursery is not None:
            nursery.join(_END_SECONDS)

    def _answered(self, call: Call, hear: Hear) -> Any:
        connection = self._begun()
        answer: tuple[str, Any] | None = None
        try:
            with self._sending:
                connection.send(call)
                self._at_work = True
            while True:
                kind, value = connection.recv()
                if kind == DIED:
                    break
                if kind in (ANSWERS, FAILS):
                    answer = (kind, value)
                else:
                    hear(kind, value)
        except (EOFError, OSError):
            value = self._ended()
        finally:
            with self._sending:
                self._at_work = False
        if answer is None:
            raise _OverError(value)
        kind, value = answer
        if kind == FAILS:
            raise RuntimeError(value)
        return value

    def _begun(self) -> Connection:
        if self._nursery is None or self._connection is None or not self._nursery.is_alive():
            self.close()
            ours, theirs = Pipe()
            context = multiprocessing.get_context("spawn")
            nursery = context.Process(target=tend, args=(theirs, self._forks, self._loads), name="nursery", daemon=True)
            with without_main():
                nursery.start()
            theirs.close()
            self._nursery, self._connection = nursery, ours
        return self._connection

    def _ended(self) -> int | None:
        """The exit code of a nursery that is over."""
        assert self._nursery is not None
        nursery = self._nursery
        nursery.join(_END_SECONDS)
        code = nursery.exitcode
        self.close()
        return code


class _OverError(Exception):
    def __init__(self, exit_code: int | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class _Errors:
    """A file for what a process writes to stderr, which goes to this process's own afterwards."""

    def __init__(self) -> None:
        descriptor, self.path = tempfile.mkstemp(prefix="foldfleet-")
        self._file = os.fdopen(descriptor, "rb")

    def tail(self) -> str:
        """The end of what was written."""
        self._file.seek(max(0, os.fstat(self._file.fileno()).st_size - _TAIL_BYTES))
        return self._file.read().decode(errors="replace")

    def close(self) -> None:
        sys.stderr.write(self.tail())
        self._file.close()
        with contextlib.suppress(OSError):  # mostly its process has removed it, so that of a killed one none is left
            Path(self.path).unlink()
