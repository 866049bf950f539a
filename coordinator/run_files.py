"""What a run leaves for people, on this machine too when the store is elsewhere: a report is opened, not downloaded."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from coordinator.journal import Journal
from shared_store import layout
from shared_store.backend import Backend, Content, Passing
from shared_store.errors import StoreError
from shared_store.layout import slug
from shared_store.local import LocalBackend
from shared_store.store import Store

JOURNAL = "events.jsonl"
_CARRY_SECONDS = 20.0
_REST = 20  # waits so many times as long as the last carrying took
_NOBODY: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
_RUNS = "runs/"


def with_run_files_here(store: Store, cache_folder: Path) -> Store:
    """The same store, with a copy of every file below `runs/` that is published through it kept on this machine.

    A store that lies on this machine is given back as it is.
    """
    if store.backend.local_path("") is not None:
        return store
    return Store(_RunFilesHere(store.backend, LocalBackend(cache_folder / slug(store.url))))


@contextlib.contextmanager
def journal_here(store: Store, run: str, first_seconds: float = _CARRY_SECONDS) -> Iterator[Journal]:
    """The run's journal, on this machine while it is written. A store elsewhere gives it first and gets it back.

    On the way it gets it now and then, for `status` on other machines: after `first_seconds`, then ever again.
    """
    key = layout.run_file(run, JOURNAL)
    path = store.backend.local_path(key)
    assert path is not None, f"{store.url} keeps no run's files here"
    elsewhere = store.backend.local_path("") is None
    if elsewhere and (there := store.read(key)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size < len(there):  # ours is longer where a kill left it behind
            path.write_bytes(there)
    try:
        with Journal(path) as journal, _Carrier(store, key, path, first_seconds) if elsewhere else _NOBODY:
            yield journal
    finally:
        if elsewhere:
            store.publish(key, path.read_bytes())


def journal_bytes(store: Store, run: str) -> bytes:
    """The run's journal as far as it is known here: this machine's copy is ahead of the store's while it drives."""
    key = layout.run_file(run, JOURNAL)
    path = store.backend.local_path(key)
    here = path.read_bytes() if path is not None and path.exists() else b""
    there = store.read(key) if path is None or store.backend.local_path("") is None else None
    return max(here, there or b"", key=len)


class _Carrier(threading.Thread):
    """Brings a journal that grows into a store elsewhere, as it is, again and again.

    The link is busy with it for 5 % of the time at most, however long the journal has become.
    """

    def __init__(self, store: Store, key: str, path: Path, seconds: float) -> None:
        super().__init__(name="journal", daemon=True)
        self._there, self._key, self._path = Store(_beyond(store.backend)), key, path
        self._seconds = seconds
        self._ended = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        wait, carried = self._seconds, 0
        while not self._ended.wait(wait):
            began, size = time.monotonic(), self._path.stat().st_size
            if size > carried:
                try:
                    self._there.publish(self._key, self._path.read_bytes())
                    carried = size
                except StoreError:
                    pass  # folds tell of a store that is down, and the end of the run publishes it or says why not
            wait = max(self._seconds, _REST * (time.monotonic() - began))


def _beyond(backend: Backend) -> Backend:
    """The backend without the copies here: a journal that is published while it is written would be replaced here."""
    while isinstance(backend, Passing) and not isinstance(backend, _RunFilesHere):
        backend = backend.inner
    assert isinstance(backend, _RunFilesHere), f"{backend.url} keeps no run's files here"
    return backend.inner


class _RunFilesHere(Passing):
    """A backend elsewhere, and a folder here for what lies below `runs/`. Truth is read from the backend alone."""

    def __init__(self, inner: Backend, here: LocalBackend) -> None:
        super().__init__(inner)
        self._here = here

    def publish(self, key: str, content: Content) -> None:
        self.inner.publish(key, content)
        if key.startswith(_RUNS):
            self._here.publish(key, content)

    def size(self, key: str) -> int | None:
        """None also for a run's file that is not here yet, so that whoever asks publishes it again."""
        if key.startswith(_RUNS) and self._here.size(key) is None:
            return None
        return self.inner.size(key)

    def move(self, key: str, to: str) -> None:
        assert not key.startswith(_RUNS), f"{key} is for people, and overwritten in its place"
        self.inner.move(key, to)

    def delete(self, key: str) -> None:
        self.inner.delete(key)
        if key.startswith(_RUNS):
            self._here.delete(key)

    def local_path(self, key: str) -> Path | None:
        return self._here.local_path(key) if key.startswith(_RUNS) else None
