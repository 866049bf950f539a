"""Process-wide settings: taken where the platform has them, and felt."""

import gc
import platform
import subprocess
import sys
import weakref

import cv2

from workers.tuning import tune_process, unsearched_modules

FAULTS = """
import resource, sys
import numpy as np
from workers.tuning import tune_process
if sys.argv[1] == "tuned":
    assert tune_process()
def touch():
    [np.ones(6_000_000, np.uint8) for _ in range(15)]
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_the_settings_are_taken() -> None:
    assert tune_process() == (platform.libc_ver()[0] == "glibc")
    assert cv2.getNumThreads() == 1


def page_faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if platform.libc_ver()[0] == "glibc":

    def test_freed_memory_is_used_again_without_page_faults() -> None:
        assert page_faults("tuned") < 100
        assert page_faults("untouched") > 1000


def test_what_was_there_is_not_searched_meanwhile_and_what_comes_is() -> None:
    class Node:
        own: object = None

    with unsearched_modules():
        assert gc.get_freeze_count() > 10_000
        node = Node()
        node.own = node
        there = weakref.ref(node)
        del node
        gc.collect()
        assert there() is None
    assert gc.get_freeze_count() == 0
