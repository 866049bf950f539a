"""A store that only one process of a machine can reach, for the processes that it begins.

Who is part of a Ray cluster reaches the head's disk and the one committer; a process that it begins is not. So the
first serves its backend (`Relay`), and the others go through its door. Where the disk is this machine's own, they go
straight to it and through the door for claims alone.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from shared_store.backend import Backend, Content, Entry
from shared_store.committer import Committed
from shared_store.errors import StoreDownError, StoreError
from shared_store.local import LocalBackend

log = logging.getLogger(__name__)
_CALLS = frozenset({"put_if_absent", "size", "move", "delete", "list", "leftovers", "close"})
_MORE, _FROM_THE_START, _ANSWER, _ERROR, _END = "more", "from the start", "answer", "error", "end"


@dataclass(frozen=True)
class Door:
    """Where a relay listens, for processes of this machine that were given the key."""

    url: str  # of the store
    address: Any  # as multiprocessing has it
    key: bytes = field(repr=False)
    root: str | None  # the store's folder on this machine's own disk, where that is it


class Relay:
    """Serves `backend` to other processes of this machine, each connection in a thread; all end with this process."""

    def __init__(self, backend: Backend) -> None:
        key, local = secrets.token_bytes(32), backend.local_path("")
        self._backend, self._closed = backend, False
        self._listener = Listener(_address(), authkey=key)
        root = None if local is None else str(local)
        self.door = Door(backend.url, self._listener.address, key, root)
        threading.Thread(target=self._listen, name="relay", daemon=True).start()

    def close(self) -> None:
        """Let nobody new in."""
        self._closed = True
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (AuthenticationError, EOFError, ConnectionError):
                continue  # who has no key, or ended at the door
            except OSError:
                return  # closed
            if self._closed:  # while somebody was waited for
                connection.close()
                return
            threading.Thread(target=self._serve, args=(connection,), name="relayed", daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError), connection:
            while True:
                method, *arguments = connection.recv()
                try:
                    answer = self._answer(connection, method, arguments)
                except _GoneError:
                    return
                except StoreError as error:
                    connection.send((_ERROR, error))
                except Exception as error:
                    log.exception("%s: %s failed", self.door.url, method)
                    connection.send((_ERROR, error))
                else:
                    connection.send((_ANSWER, answer))

    def _answer(self, connection: Connection, method: str, arguments: list[Any]) -> Any:
        if method in _CALLS:
            return getattr(self._backend, method)(*arguments)
        if method == "publish":
            key, size = arguments
            self._backend.publish(key, _Pulled(connection, size))
            return None
        assert method == "parts", f"a relay is asked for {method}"
        parts = self._backend.parts(*arguments)
        if parts is None:
            return None
        connection.send((_ANSWER, True))
        while connection.recv() == _MORE:  # before the next part is read: its failure is the answer
            part = next(parts, None)
            if part is None:
                return _END
            connection.send((_MORE, bytes(part)))
        raise _GoneError


class _GoneError(Exception):
    """Whoever asked has let go."""


class _Pulled(Content):
    """Bytes that the asking process hands over one part at a time, as they are needed."""

    def __init__(self, connection: Connection, size: int) -> None:
        super().__init__(b"")
        self._connection, self._bytes = connection, size

    @property
    def size(self) -> int:
        return self._bytes

    def __iter__(self) -> Iterator[memoryview]:
        self._connection.send((_FROM_THE_START, None))
        try:
            while part := self._connection.recv_bytes():
                yield memoryview(part)
                self._connection.send((_MORE, None))
        except (EOFError, OSError) as error:
            raise _GoneError from error


def open_relayed(door: Door) -> Backend:
    """The backend behind a door."""
    relayed = RelayedBackend(door)
    if door.root is None:
        return relayed
    disk = LocalBackend(Path(door.root))
    disk.url = door.url
    return Committed(disk, relayed.put_if_absent)


class RelayedBackend:
    """A backend that another process of this machine holds: one call at a time over each connection to it."""

    def __init__(self, door: Door) -> None:
        self.url, self._door = door.url, door
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return bool(self._ask("put_if_absent", key, data))

    def publish(self, key: str, content: Content) -> None:
        with self._connected() as connection:
            connection.send(("publish", key, content.size))
            parts = iter(content)
            while (asked := connection.recv())[0] in (_MORE, _FROM_THE_START):
                if asked[0] == _FROM_THE_START:
                    parts = iter(content)
                connection.send_bytes(next(parts, b""))
        _unpacked(asked)

    def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
        received = self._receive(key, start)
        return None if next(received, None) is None else received

    def size(self, key: str) -> int | None:
        size: int | None = self._ask("size", key)
        return size

    def move(self, key: str, to: str) -> None:
        self._ask("move", key, to)

    def delete(self, key: str) -> None:
        self._ask("delete", key)

    def list(self, prefix: str) -> list[Entry]:
        return list(self._ask("list", prefix))

    def leftovers(self) -> Sequence[Entry]:
        found: Sequence[Entry] = self._ask("leftovers")
        return found

    def local_path(self, key: str) -> Path | None:
        return None

    def close(self) -> None:
        """The other process opens its backend anew; connections stay."""
        self._ask("close")

    def _receive(self, key: str, start: int) -> Iterator[bytes]:
        """Nothing where there is no such key; else no bytes, then all of them."""
        with self._connected() as connection:
            connection.send(("parts", key, start))
            answer = connection.recv()
            if answer == (_ANSWER, True):
                yield b""
                connection.send(_MORE)
                while (answer := connection.recv())[0] == _MORE:
                    yield answer[1]
                    connection.send(_MORE)
        _unpacked(answer)

    def _ask(self, method: str, *arguments: object) -> Any:
        with self._connected() as connection:
            connection.send((method, *arguments))
            answer = connection.recv()
        return _unpacked(answer)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection for one call; one whose call was not brought to its end is not used again."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        try:
            connection = connection or Client(self._door.address, authkey=self._door.key)
        except (EOFError, OSError, AuthenticationError) as error:
            raise self._gone(error) from error
        try:
            yield connection
        except (EOFError, ConnectionError) as error:
            connection.close()
            raise self._gone(error) from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)

    def _gone(self, error: Exception) -> StoreDownError:
        what = f"the process that reaches the store does not answer ({type(error).__name__})"
        return StoreDownError(what, where=self.url, mend="nothing: what it began ends with it")


def _unpacked(answer: tuple[str, Any]) -> Any:
    kind, value = answer
    if kind == _ERROR:
        raise value
    return value


def _address() -> str | None:
    """A name that leaves no file where the system has such names; None: multiprocessing chooses one."""
    name = f"foldfleet-{secrets.token_hex(8)}"
    return {"linux": f"\0{name}", "win32": rf"\\.\pipe\{name}"}.get(sys.platform)
