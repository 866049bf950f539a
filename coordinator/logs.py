"""Where a person finds the log of a fold."""

from __future__ import annotations

from shared_store import layout
from shared_store.store import Store

LOG = "train.log"


def log_place(store: Store, task: str) -> str:
    """The path of a task's train.log, or its key where the store is elsewhere; "" where there is none yet."""
    key = layout.log(task, LOG)
    if not store.exists(key):
        return ""
    path = store.backend.local_path(key)
    return f"{store.url.rstrip('/')}/{key}" if path is None else str(path)
