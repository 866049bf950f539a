"""How Ray begins: one embedded in this process on this machine, or a cluster that stands somewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

import shared_store
import workers
from coordinator.access import EMBEDDED_ENVIRONMENT, enter_fleet
from coordinator.joining import OBJECT_STORE_BYTES
from coordinator.scratch import Scratch
from shared_store.errors import UserError

CONNECT_SECONDS = 10.0


def begin_ray(address: str | None, dashboard: bool = False) -> Scratch | None:
    """Connect to the cluster at `address`, or begin a Ray of our own and return its folder. UserError if neither.

    `dashboard`: with a Ray of our own begins its dashboard, for this machine alone: a second more, and 12 processes.

    A cluster is entered with its token only. A process that is connected to a cluster stays so.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "foldfleet"}
    if address is not None:
        code = [package.__path__[0] for package in (workers, shared_store)]
        try:
            if address != "auto":  # Ray itself tries a dead address for many minutes
                host, _, port = address.rpartition("://")[2].rpartition(":")
                socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            if not ray.is_initialized():
                enter_fleet(os.environ, Path.home())
                ray._raylet.Config.initialize("")  # Ray read its variables when it was imported
                ray.init(address=address, runtime_env={"py_modules": code}, **quiet)
        except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
            mend = (
                "start the cluster with `foldfleet up cluster.yaml`, or leave out fleet.address to run on this machine"
            )
            raise UserError(f"no Ray cluster answers: {error}", where=f"fleet.address {address}", mend=mend) from error
        return None
    for name, value in EMBEDDED_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    scratch = Scratch()
    with _sigterm_held():
        ray.init(
            address="local",  # without it Ray joins whatever cluster it finds on this machine
            include_dashboard=dashboard,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(scratch.path),
            **quiet,
        )
    return scratch


def dashboard_address() -> str:
    """Where the dashboard of the Ray that this process is connected to listens; empty where it has none."""
    address: str | None = ray._private.worker.get_dashboard_url()
    return f"http://{address}" if address else ""


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
