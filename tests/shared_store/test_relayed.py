"""A store behind a door: what the process that reaches it serves to those that it began."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared_store.backend import PART_BYTES, Backend, Content, Passing
from shared_store.committer import Committed
from shared_store.errors import StoreDownError, StoreFullError
from shared_store.local import LocalBackend
from shared_store.relayed import Relay, RelayedBackend, open_relayed

LARGE = bytes(range(256)) * (PART_BYTES // 256) + b"and some more"


class Elsewhere(Passing):
    """A disk that is not this machine's own."""

    def local_path(self, key: str) -> Path | None:
        return None

    def move(self, key: str, to: str) -> None:
        raise StoreFullError(f"no room for {key}", where=to, mend="make some")


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(Elsewhere(LocalBackend(tmp_path / "far")))
    yield relay
    relay.close()


def read(backend: RelayedBackend, key: str, start: int = 0) -> bytes | None:
    parts = backend.parts(key, start)
    return None if parts is None else b"".join(parts)


def test_bytes_come_back_as_they_went_also_from_the_middle(relay: Relay) -> None:
    backend = RelayedBackend(relay.door)
    for key, data in (("blobs/empty", b""), ("blobs/small", b"small"), ("blobs/large", LARGE)):
        backend.publish(key, Content(data))
        assert backend.size(key) == len(data) and read(backend, key) == data
    assert read(backend, "blobs/large", PART_BYTES - 3) == LARGE[PART_BYTES - 3 :]
    assert read(backend, "blobs/none") is None and backend.size("blobs/none") is None
    assert [entry.key for entry in backend.list("blobs")] == ["blobs/empty", "blobs/large", "blobs/small"]


def test_one_of_several_writers_wins_through_connections_of_their_own(relay: Relay) -> None:
    backend, won = RelayedBackend(relay.door), list[str]()

    def claim(name: str) -> None:
        if backend.put_if_absent("results/one.json", name.encode()):
            won.append(name)

    threads = [threading.Thread(target=claim, args=(f"writer {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and read(backend, "results/one.json") == won[0].encode()


def test_an_error_is_raised_here_as_it_was_there_and_the_next_call_is_answered(relay: Relay) -> None:
    backend = RelayedBackend(relay.door)
    with pytest.raises(StoreFullError, match="no room for blobs/a") as caught:
        backend.move("blobs/a", "blobs/b")
    assert caught.value.mend == "make some"
    assert backend.size("blobs/a") is None


class Failing(Elsewhere):
    """One that is gone after the first part of what is read, once."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.failed = False

    def parts(self, key: str, start: int = 0) -> Iterator[bytes | memoryview] | None:
        parts = super().parts(key, start)
        if parts is None or self.failed:
            return parts
        self.failed = True
        return self._one_of(parts)

    def _one_of(self, parts: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        yield next(parts)
        raise StoreDownError("the head is away", where=self.url, mend="wait")


def test_a_read_that_fails_in_the_middle_leaves_a_connection_that_answers(tmp_path: Path) -> None:
    relay = Relay(Failing(LocalBackend(tmp_path / "far")))
    backend = RelayedBackend(relay.door)
    backend.publish("blobs/large", Content(LARGE))
    with pytest.raises(StoreDownError, match="the head is away"):
        read(backend, "blobs/large")
    backend.close()  # what a patient reader does before it reads on
    assert read(backend, "blobs/large") == LARGE
    relay.close()


def test_bytes_that_fail_on_the_way_leave_nothing_and_a_reader_may_let_go(relay: Relay, tmp_path: Path) -> None:
    backend = RelayedBackend(relay.door)
    gone = tmp_path / "gone"
    gone.write_bytes(LARGE)
    content = Content(gone)

    class Failing(Content):
        def __iter__(self) -> Iterator[memoryview]:
            yield next(super().__iter__())
            raise FileNotFoundError(gone)

    with pytest.raises(FileNotFoundError):
        backend.publish("blobs/large", Failing(gone))
    assert backend.size("blobs/large") is None
    backend.publish("blobs/large", content)
    parts = backend.parts("blobs/large")
    assert parts is not None and len(next(parts)) > 0
    del parts
    assert read(backend, "blobs/large") == LARGE


def test_a_disk_of_this_machine_is_written_straight_and_claimed_through_the_door(tmp_path: Path) -> None:
    claimed: list[str] = []

    def commit(key: str, _data: bytes) -> bool:
        claimed.append(key)
        return True

    relay = Relay(Committed(LocalBackend(tmp_path / "here"), commit))
    backend = open_relayed(relay.door)
    backend.publish("blobs/small", Content(b"small"))
    assert backend.local_path("blobs/small") == tmp_path / "here" / "blobs" / "small"
    assert backend.put_if_absent("results/one.json", b"first") and claimed == ["results/one.json"]
    relay.close()


def test_a_door_that_nobody_opens_is_a_store_that_is_down(relay: Relay) -> None:
    relay.close()
    with pytest.raises(StoreDownError, match="does not answer"):
        RelayedBackend(relay.door).size("blobs/a")
