"""What every executor is given beside its task: where to keep things, who to tell, what to run on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from shared_store.cache import Cache
from shared_store.store import Store
from workers.tasks import Reporter


@dataclass(frozen=True)
class Work:
    """One attempt at one task. `task` is its id, `spec` its whole hash, `nonce` this attempt's own mark."""

    task: str
    spec: str
    attempt: int
    nonce: str
    store: Store
    cache: Cache
    reporter: Reporter
    device: str = "cpu"  # a torch device: "cpu", "cuda:0"
    threads: int = 1  # torch threads; part of what makes a CPU run repeat to the bit
    upload_share: float = 0.5  # of the link, for commits that go into the store while training goes on
    micro_batch: int | None = None  # images on the card at once, in place of the recipe's; divides its batch_size
    orphan_seconds: float = math.inf  # without the store and without being asked for reports: then it ends itself
    unheard_seconds: Callable[[], float] = float  # how long nobody has asked; zero where nobody would
