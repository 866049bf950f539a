"""How Ray begins: one embedded in this process on this machine, or a cluster that stands somewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import ray

import shared_store
import workers
from coordinator.scratch import Scratch
from shared_store.errors import UserError

CONNECT_SECONDS = 10.0
OBJECT_STORE_BYTES = 256 * 2**20  # reports and outcomes are small; data goes through the store
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",  # idle workers that nobody asked for cost seconds and 80 MB each
    "RAY_prestart_worker_first_driver": "0",
    # Parts of files that went through the head's store are let go of at once, not a hundred of them at a time.
    "RAY_free_objects_batch_size": "2",
    "RAY_free_objects_period_milliseconds": "100",
}


def begin_ray(address: str | None) -> Scratch | None:
    """Connect to the cluster at `address`, or begin a Ray of our own and return its folder. UserError if neither.

    A process that is connected to a cluster stays so.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "foldfleet"}
    if address is not None:
        code = [package.__path__[0] for package in (workers, shared_store)]
        try:
            if address != "auto":  # Ray itself tries a dead address for many minutes
                host, _, port = address.rpartition("://")[2].rpartition(":")
                socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            if not ray.is_initialized():
                ray.init(address=address, runtime_env={"py_modules": code}, **quiet)
        except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
            mend = "start the cluster with `ray up cluster.yaml`, or leave out fleet.address to run on this machine"
            raise UserError(f"no Ray cluster answers: {error}", where=f"fleet.address {address}", mend=mend) from error
        return None
    scratch = Scratch()
    with _sigterm_held():
        ray.init(
            address="local",  # without it Ray joins whatever cluster it finds on this machine
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(scratch.path),
            **quiet,
        )
    return scratch


@contextlib.contextmanager
def _sigterm_held() -> Iterator[None]:
    """Processes begun within do not take SIGTERM: who sends it to a whole group (`timeout`, a service manager) means
    this process, and must not end Ray under folds that still commit. Ray does the same for SIGINT, not for SIGTERM.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
