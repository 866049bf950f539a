"""What a prediction costs: seconds by part, milliseconds per image, peak memory. Reads the clock; decides nothing."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

Item = TypeVar("Item")

_BYTES_PER_MB = 1e6


class Meter:
    """Adds up the seconds of named parts (`load`, `read`, `model`) on one device.

    On a GPU a part must end with a copy to the host (as `Predictor.logits` does), or its work is still in flight.
    """

    def __init__(self, device: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, float] = defaultdict(float)
        self.images = 0
        self._clock = clock
        if self.device.type == "cuda":
            torch.cuda.init()  # a process that never used the card has no statistics to reset
            torch.cuda.reset_peak_memory_stats(self.device)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - began

    def timed(self, name: str, items: Iterator[Item]) -> Iterator[Item]:
        """The same items; the seconds of waiting for each go to the part `name`."""
        while True:
            with self.part(name):
                item = next(items, None)
            if item is None:
                return
            yield item

    def ms_per_image(self, *parts: str) -> float:
        """Milliseconds per image of `parts` together; 0 before the first image."""
        return 1000 * sum(self.seconds[part] for part in parts) / self.images if self.images else 0.0

    def memory_mb(self) -> float:
        """Peak megabytes (1e6 bytes): tensors on the GPU, or the whole process's resident memory on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / _BYTES_PER_MB
        return peak_process_mb()


def peak_process_mb() -> float:
    """The most resident memory that this process ever had, in megabytes."""
    if sys.platform == "win32":
        return _windows_peak_bytes() / _BYTES_PER_MB
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a started process would begin at its parent's size
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / _BYTES_PER_MB
    import resource

    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / _BYTES_PER_MB


def _windows_peak_bytes() -> int:
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):  # PROCESS_MEMORY_COUNTERS of psapi.h
        _fields_ = (
            ("cb", wintypes.DWORD),
            ("page_faults", wintypes.DWORD),
            ("peak_working_set", ctypes.c_size_t),
            ("working_set", ctypes.c_size_t),
            ("quotas", ctypes.c_size_t * 4),
            ("pagefile", ctypes.c_size_t),
            ("peak_pagefile", ctypes.c_size_t),
        )

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel = ctypes.CDLL("kernel32")
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    kernel.K32GetProcessMemoryInfo.argtypes = (wintypes.HANDLE, ctypes.POINTER(Counters), wintypes.DWORD)
    if not kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
        return 0
    return int(counters.peak_working_set)
