"""Process-wide settings that make work fast and change no result.

OpenCV's own threads are switched off: folds share a machine's cores, and `workers.images` brings its own threads.

glibc gives freed blocks above 128 KiB back to the kernel, which hands them out again page by page, zeroed: some 600
page faults for each 600 px image, a quarter of the whole time of decode and augmentation. Blocks up to 32 MiB (the
most that glibc allows) are therefore kept, and so is up to KEPT_BYTES of free memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
import sys
from collections.abc import Iterator
from functools import cache

import cv2

KEPT_BYTES = 128 * 2**20
_LARGEST_BYTES = 32 * 2**20
# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


@cache
def tune_process() -> bool:
    """Set both, the first time in a process. True where freed memory is kept (Linux with glibc)."""
    cv2.setNumThreads(0)
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES) == 1 and libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES) == 1
    )


@contextlib.contextmanager
def unsearched_modules() -> Iterator[None]:
    """Spare Python's garbage collector what is there already, which stays: torch's and timm's modules, for the most.

    To look through all of it takes a fifth of a second, and the many small tables of a commit set that off.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
