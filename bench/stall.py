"""What a commit costs the training: a 212 MB state (EfficientNet-B4 and Adam), kept by foldfleet and in other ways.

    python -m bench.stall [--commits 12] [--folder /where/the/cache/is] [--device cuda:0]

In one run, round by round, each way keeps the same state, with its best weights where it says so:

  commit       the training thread's part of a commit: all that training waits for; two threads do the rest
  with best    the same when the weights are the best so far, which are kept beside it
  torch.save   into a file that is synced
  pack + put   the state as bytes, then into a folder store: what a commit was before there were two tiers

Between commits each has landed, is in the store, and older ones are gone from it: in a fold they are minutes apart.
`memory` is the most that the process grew by beyond the two buffers that snapshots lie in (anonymous and shared pages).
On a card the buffers are pinned memory, which those pages do not count, and each way begins with an idle card.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch

from bench.transfers import memory_mb
from shared_store.cache import Cache
from shared_store.local import LocalBackend
from shared_store.store import Store
from workers.checkpoint import Checkpoints
from workers.staging import size_of
from workers.state_file import flatten, pack
from workers.tasks import Progress
from workers.tier import open_tier
from workers.tuning import unsearched_modules
from workers.work import Work

LIMIT_MS = 50.0
BUFFERS = 2
REST_SECONDS = 0.3
_SAMPLE_SECONDS = 0.005


class Silent:
    """A reporter that nobody reads."""

    def progress(self, progress: Progress) -> None:
        """Nothing is told."""

    def stop_requested(self) -> bool:
        return False


class Training:
    """A model with an optimizer that has taken a step, as a fold has it."""

    def __init__(self, device: str) -> None:
        self.device = device
        model = timm.create_model("tf_efficientnet_b4", num_classes=12)
        self.model = model.to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        for parameter in self.model.parameters():
            parameter.grad = torch.rand_like(parameter)
        self.step()

    def step(self) -> None:
        """Change every tensor of the state."""
        self.optimizer.step()
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def state(self) -> dict[str, Any]:
        return {"learner": {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, "story": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=12)
    parser.add_argument("--folder", default=None, help="on the disk to measure; a temporary one by default")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-stall-", dir=given.folder) as folder:
        milliseconds, grown_mb, state_mb = measured(Path(folder), given.commits, given.device)
    print(f"state of {state_mb:.0f} MB on {named(given.device)}, {given.commits} rounds")
    print("milliseconds that the training stands still:")
    for name, took in milliseconds.items():
        print(f"{name:11} median {statistics.median(took):7.1f}   worst {max(took):7.1f}")
    for name in ("commit", "with best"):
        median = statistics.median(milliseconds[name])
        print(f"{name:11} at most {LIMIT_MS:.0f} ms in the median    {'ok' if median <= LIMIT_MS else 'MISSED'}")
        for other in ("torch.save", "pack + put"):
            ratio = statistics.median(b / a for a, b in zip(milliseconds[name], milliseconds[other], strict=True))
            print(f"{name:11} {ratio:5.1f} times as short as {other}")
    if given.device == "cpu":
        print(f"memory      {grown_mb:.0f} MB beyond the {BUFFERS} buffers")


def named(device: str) -> str:
    return device if device == "cpu" else f"{torch.cuda.get_device_name(device)} (torch {torch.__version__})"


def measured(folder: Path, commits: int, device: str) -> tuple[dict[str, list[float]], float, float]:
    """Milliseconds of each way in each round, the memory that committing took, the size of the state (MB)."""
    training, store = Training(device), Store(LocalBackend(folder / "store"))
    state_mb = size_of(flatten(training.state())[1]) / 1e6
    cache = Cache(folder / "cache", 1.0)
    work = Work("teacher-fold0-bench", "0" * 64, 1, "nonce", store, cache, Silent(), device)
    took: dict[str, list[float]] = {"commit": [], "with best": [], "torch.save": [], "pack + put": []}
    base_mb = memory_mb(os.getpid())
    with unsearched_modules(), Checkpoints(work, open_tier(work.cache.folder, store.url)) as checkpoints:
        checkpoints.resume()
        checkpoints.prepare(training.state())

        def commit(number: int) -> float:
            training.step()
            best = ("learner", "model") if number % 2 else None
            spent = timed(lambda: checkpoints.commit(training.state(), (0, number), best))
            assert checkpoints.settle()
            time.sleep(REST_SECONDS)
            return spent

        commit(0)  # the first waits for the buffers, which a fold has made while it trains
        for number in range(1, 2 * commits + 1):
            took["with best" if number % 2 else "commit"].append(commit(number))
        with peak() as highest_mb:  # who looks that often slows down what it looks at
            for number in range(2 * commits + 1, 2 * commits + 7):
                commit(number)
    grown_mb = highest_mb() - base_mb - BUFFERS * state_mb
    for _ in range(commits):
        training.step()
        took["torch.save"].append(timed(lambda: save(training, folder / "saved")))
        took["pack + put"].append(timed(lambda: store.put_blob(pack(training.state(), {}))))
    return took, grown_mb, state_mb


def save(training: Training, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(training.state(), file)
        file.flush()
        os.fsync(file.fileno())


def timed(act: Callable[[], object]) -> float:
    """Milliseconds that `act` takes."""
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)


@contextmanager
def peak() -> Iterator[Callable[[], float]]:
    """Watch this process's memory; what it gives tells the most so far (MB)."""
    done, highest = threading.Event(), [memory_mb(os.getpid())]

    def look() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            highest[0] = max(highest[0], memory_mb(os.getpid()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield lambda: highest[0]
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    main()
