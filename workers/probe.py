"""A short probe of one slot: what machine this is, and how fast its device trains beside others. It never raises."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import statistics
import sys
import time

from workers.recipe import Recipe
from workers.tasks import Probed

LABELS = "FOLDFLEET_LABELS"  # environment variable: what the machine's owner calls it, comma separated
PIXELS_PER_SECOND_OF_ONE = 1e6
"""What speed 1 stands for: about half of what one core of 2020 trains on. Only ratios matter."""
_SECONDS = 0.8  # for all timed rounds
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 9
_STEPS_A_ROUND = 2
_WIDTH = 24
_BATCH_ON_THE_CPU, _BATCH_ON_CARDS = (8, 64), (32, 224)  # images, side; a card wants more at once to be busy


def machine_memory_gb() -> float | None:
    """All memory of this machine; None where the system does not tell."""
    if sys.platform == "win32":
        # GlobalMemoryStatusEx's MEMORYSTATUSEX: its own length, the load, then seven sizes; the first is all memory
        status = (ctypes.c_uint64 * 8)()
        ctypes.cast(status, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(status)
        known = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return status[1] / 1e9 if known else None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (OSError, ValueError):
        return None


def system() -> str:
    """`linux`, `windows` or `darwin`."""
    return platform.system().lower()


def labels() -> tuple[str, ...]:
    """What this machine's owner calls it."""
    return tuple(sorted({word.strip() for word in os.environ.get(LABELS, "").split(",")} - {""}))


def probe(device: str, threads: int, *, slots: int, share: float, timed: bool) -> Probed:
    """Look at the slot's device ("cpu", "cuda:0"), and train a little on it with `threads` threads where `timed`.

    `slots` share the machine's memory on the CPU; else `share` is the slot's part of its card.
    """
    memory_gb = machine_memory_gb()
    found = Probed(True, "", system(), labels(), None if memory_gb is None else memory_gb / slots)
    try:
        import torch

        if device != "cpu":
            memory_gb = torch.cuda.get_device_properties(device).total_memory / 1e9 * share
            found = dataclasses.replace(found, memory_gb=memory_gb, bits=_auto_bits(device))
        if not timed:
            return found
        speed = _pixels_per_second(device, threads) / PIXELS_PER_SECOND_OF_ONE
    except (RuntimeError, OSError, AssertionError, ImportError, MemoryError) as error:  # what a device that fails gives
        what = f"{type(error).__name__}: {str(error).strip()}"
        return dataclasses.replace(found, passed=False, what=what)
    return dataclasses.replace(found, speed=speed)


def _auto_bits(device: str) -> int:
    import torch

    from workers.loop import auto_bits

    return auto_bits(torch.device(device))


def _pixels_per_second(device: str, threads: int) -> float:
    """How fast one small convolutional network trains on the same random images everywhere: the median round.

    In the precision that `recipe.precision: auto` stands for there. RuntimeError where the loss is no finite number: a
    device that computes wrongly.
    """
    import torch
    from torch import nn

    from workers.loop import autocast, compute_dtype

    (count, side), place = _BATCH_ON_THE_CPU if device == "cpu" else _BATCH_ON_CARDS, torch.device(device)
    dtype = compute_dtype(Recipe(), place)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[] if device == "cpu" else [device]):
            torch.manual_seed(0)
            network = nn.Sequential(
                nn.Conv2d(3, _WIDTH, 3, stride=2, padding=1), nn.BatchNorm2d(_WIDTH), nn.SiLU(),
                nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, stride=2, padding=1), nn.BatchNorm2d(2 * _WIDTH), nn.SiLU(),
                nn.Conv2d(2 * _WIDTH, 4 * _WIDTH, 3, padding=1), nn.BatchNorm2d(4 * _WIDTH), nn.SiLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * _WIDTH, 2),
            ).to(device)  # fmt: skip
            images = torch.rand(count, 3, side, side).to(device)
            targets = (torch.arange(count) % 2).to(device)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

        def round_seconds() -> float:
            began = time.perf_counter()
            for _ in range(_STEPS_A_ROUND):
                optimizer.zero_grad(set_to_none=True)
                with autocast(place, dtype):
                    logits = network(images)
                loss = nn.functional.cross_entropy(logits.float(), targets)
                torch.autograd.backward(loss)
                optimizer.step()
            if not torch.isfinite(loss).item():  # waits for the device, too
                raise RuntimeError("training gave a loss that is no finite number")
            return time.perf_counter() - began

        round_seconds()  # the first chooses algorithms and allocates
        began, rounds = time.perf_counter(), list[float]()
        while len(rounds) < _LEAST_ROUNDS or (len(rounds) < _MOST_ROUNDS and time.perf_counter() - began < _SECONDS):
            rounds.append(round_seconds())
        return _STEPS_A_ROUND * count * side * side / statistics.median(rounds)
    finally:
        torch.set_num_threads(threads_before)
