"""What tests have done in processes of their own: these are loaded there by name. No test in here."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from workers.apart import Apart
from workers.nursery import Hands
from workers.tasks import Progress


def answer(words: str, _hands: Hands) -> tuple[str, int]:
    return words, os.getpid()


def say(hands: Hands) -> str:
    for step in range(3):
        hands.progress(Progress("fold", 1, step=step))
    return "said"


def wait_for_a_stop(hands: Hands) -> bool:
    while not hands.stop_requested():
        time.sleep(0.01)
    return True


def wait_until_heard(hands: Hands) -> bool:
    before = hands.heard_at
    while hands.heard_at == before:
        time.sleep(0.01)
    return True


def fail(_hands: Hands) -> None:
    raise ValueError("not like this")


def leave(code: int, _hands: Hands) -> None:
    sys.stderr.write("something is wrong\n")
    sys.stderr.flush()
    os._exit(code)


def read_nowhere(_hands: Hands) -> None:
    ctypes.string_at(0)


def may_use_cards(_hands: Hands) -> bool:
    """Whether CUDA lets this process begin: it does not where the one that it was forked from has asked it anything."""
    import torch

    return not torch.cuda._is_in_bad_fork()


def be_killed(_hands: Hands) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(path: str, _hands: Hands) -> None:
    """Wait for ever, and let no other thread do anything meanwhile."""
    Path(path).write_text(str(os.getpid()))
    ctypes.PyDLL(None).pause()


def wait_for_ever(path: str, _hands: Hands) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def wait_for(act: str, path: str, forks: bool) -> None:
    """What an actor does that is killed while it waits for an answer."""
    Apart(forks, ()).call(partial(globals()[act], path), lambda _kind, _value: None)
