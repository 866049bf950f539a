"""What begins in a process of its own: where that process comes from, and what it says and hears meanwhile.

A nursery is a process that has loaded what training needs, and does nothing else. On Linux it forks for every call, so
that a fold begins in a blink instead of the seconds that torch takes to load, and shares that memory; elsewhere it does
one call itself, and ends. Whatever began it holds the other end of its connection: when that is gone, so are they.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from workers.pulse import Pulse
from workers.tasks import Progress

log = logging.getLogger(__name__)
FORKS = sys.platform == "linux"
STOP, HEARD = "stop", "heard"  # what a process is told
BEGINS, SAYS, BEATS = "begins", "says", "beats"  # what it says meanwhile, each with a value
ANSWERS, FAILS, DIED = "answers", "fails", "died"  # how it ends
SIGN_SECONDS = 5.0
TRAINS = ("workers.train", "workers.label", "workers.predict")  # what a nursery loads
_PR_SET_PDEATHSIG = 1
_ALONE = 3  # exit code of a process whose actor is gone


class Hands:
    """What a call in a process of its own may say and ask. A `workers.tasks.Reporter`."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection, self._clock = connection, clock
        self._lock = threading.Lock()  # one message at a time
        self._stop = False
        self.heard_at, self._orphan_seconds = clock(), math.inf

    def progress(self, progress: Progress) -> None:
        self.send(SAYS, progress)

    def stop_requested(self) -> bool:
        """Whether it was asked to, or nobody has asked for its reports for so long that nobody will."""
        return self._stop or self._clock() - self.heard_at >= self._orphan_seconds

    def stops_unheard_after(self, seconds: float) -> None:
        """From now on. A driver that can reach this machine asks at every turn; one that cannot gave the task away."""
        self.heard_at, self._orphan_seconds = self._clock(), seconds

    def hear(self, word: str) -> None:
        """Take in what is told."""
        self._stop = self._stop or word == STOP
        self.heard_at = self._clock() if word == HEARD else self.heard_at

    def send(self, kind: str, value: Any = None) -> None:
        """Tell whoever began this; when it is gone, `listen` knows."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.send((kind, value))

    def listen(self, pulse: Pulse) -> None:
        """Take in what is told, and give signs of life while the thread of `pulse` works. Ends with the process."""
        signed_at = self._clock()
        with contextlib.suppress(EOFError, OSError):
            while True:
                if self._connection.poll(SIGN_SECONDS):
                    self.hear(self._connection.recv())
                if self._clock() - signed_at >= SIGN_SECONDS:
                    signed_at = self._clock()
                    if pulse.beats():
                        self.send(BEATS)
        os._exit(_ALONE)  # nobody is there to hear of it: at once, before another writer comes


Act = Callable[[Hands], Any]


@dataclass(frozen=True)
class Call:
    """Something to do in a process of its own: it, its arguments and its answer go from process to process."""

    act: Act
    errors: str  # path of a file that takes what the process writes to stderr


def tend(connection: Connection, forks: bool, loads: Sequence[str]) -> None:
    """What a nursery does all its life: the target of its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer
    for name in loads:
        with contextlib.suppress(ImportError):  # whoever needs it says so
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # pages that the collector does not touch stay shared
    while True:
        try:
            call = connection.recv()
        except (EOFError, OSError):
            return
        if not isinstance(call, Call):
            continue  # a word for one that has just ended
        if not forks:
            _do(connection, call)
        with contextlib.closing(_Fork(connection, call)) as fork:
            if not fork.lives_on_until_its_end():
                return


class _Fork:
    """A call in a fork of this process."""

    def __init__(self, connection: Connection, call: Call) -> None:
        self._connection = connection
        self._ours, theirs = Pipe()
        assert sys.platform != "win32"
        self._process = os.fork()
        if self._process == 0:
            connection.close()
            self._ours.close()
            if sys.platform == "linux":  # its parent has one thread: when that ends, it is killed, whatever hangs in it
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            _do(theirs, call)
        theirs.close()

    def lives_on_until_its_end(self) -> bool:
        """Pass on what goes to and fro, and how it ended. False when the actor is gone."""
        try:
            while self._passes_on():
                pass
            status = os.waitpid(self._process, 0)[1]
            self._process = 0
            self._connection.send((DIED, os.waitstatus_to_exitcode(status)))
        except (EOFError, OSError):
            return False
        return True

    def close(self) -> None:
        """End it at once, if it is not over."""
        self._ours.close()
        if self._process:
            assert sys.platform != "win32"
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)

    def _passes_on(self) -> bool:
        """Wait for a message, and pass it on; whether it lives. EOFError or OSError when the actor is gone."""
        ready = wait([self._ours, self._connection])
        if self._connection in ready:
            word = self._connection.recv()
            with contextlib.suppress(OSError):
                self._ours.send(word)
        if self._ours in ready:
            try:
                said = self._ours.recv()
            except (EOFError, OSError):
                return False  # also in the middle of a message
            self._connection.send(said)
        return True


def _do(connection: Connection, call: Call) -> NoReturn:
    """Do a call and end this process."""
    code = 1
    try:
        os.dup2(os.open(call.errors, os.O_WRONLY | os.O_APPEND), 2)
        with contextlib.suppress(OSError):  # Windows keeps the names of open files
            Path(call.errors).unlink()
        faulthandler.enable()
        hands = Hands(connection)
        pulse = Pulse(threading.get_ident())
        threading.Thread(target=hands.listen, args=(pulse,), name="listener", daemon=True).start()
        hands.send(BEGINS)
        try:
            hands.send(ANSWERS, call.act(hands))
        except Exception as error:
            log.exception("a call failed")
            hands.send(FAILS, f"{type(error).__name__}: {error}")
        code = 0
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)
