"""A folder as a store, by the rules of POSIX and of NTFS: what it leaves, holds and says when the disk does not."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_ntfs import FOREVER, FakeNtfs

from shared_store.backend import PART_BYTES, Content
from shared_store.errors import NotExclusiveError, StoreDownError, StoreError, StoreFullError
from shared_store.local import LocalBackend
from shared_store.names import Names, NtfsNames, PosixNames
from shared_store.store import whole_path

KEY = "runs/demo/file"


def ntfs(disk: FakeNtfs) -> NtfsNames:
    return NtfsNames(disk.rename, disk.replace, disk.remove, disk.sleep)


@pytest.fixture(params=["posix", "ntfs"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "store", ntfs(FakeNtfs()) if request.param == "ntfs" else PosixNames())


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def bytes_of(backend: LocalBackend, key: str) -> bytes | None:
    parts = backend.parts(key)
    return None if parts is None else b"".join(parts)


def test_a_name_is_claimed_once_and_replaced_at_will(backend: LocalBackend) -> None:
    assert backend.put_if_absent(KEY, b"first")
    assert not backend.put_if_absent(KEY, b"second")
    assert bytes_of(backend, KEY) == b"first"
    backend.publish(KEY, Content(b"third"))
    assert bytes_of(backend, KEY) == b"third"
    assert files(backend.root) == [KEY], "and nothing else is left"


def test_who_comes_while_another_claims_the_name_loses_and_leaves_nothing(tmp_path: Path) -> None:
    for names in (PosixNames(), ntfs(FakeNtfs())):

        class Late(LocalBackend):
            def _write(self, temporary: Path, content: Content) -> None:
                super()._write(temporary, content)
                LocalBackend(self.root).put_if_absent(KEY, b"rival")

        backend = Late(tmp_path / type(names).__name__, names)
        assert not backend.put_if_absent(KEY, b"late")
        assert bytes_of(backend, KEY) == b"rival"
        assert files(backend.root) == [KEY]


@pytest.mark.parametrize("call", ["claim", "publish", "move", "delete"])
def test_what_a_scanner_holds_for_a_moment_is_asked_for_again(tmp_path: Path, call: str) -> None:
    disk = FakeNtfs()
    backend = LocalBackend(tmp_path, ntfs(disk))
    backend.publish(KEY, Content(b"old"))
    disk.hold("*", 1.0)
    if call == "claim":
        assert backend.put_if_absent("results/one.json", b"record")
        assert bytes_of(backend, "results/one.json") == b"record"
    elif call == "publish":
        backend.publish(KEY, Content(b"new"))
        assert bytes_of(backend, KEY) == b"new"
    elif call == "move":
        backend.move(KEY, "damaged/file")
        assert bytes_of(backend, "damaged/file") == b"old"
    else:
        backend.delete(KEY)
        assert bytes_of(backend, KEY) is None
    assert disk.slept == sorted(disk.slept), "each wait is longer than the one before"
    assert 1.0 <= sum(disk.slept) < 2.5


def test_what_another_program_never_lets_go_of_is_explained_and_stands(tmp_path: Path) -> None:
    disk = FakeNtfs()
    backend = LocalBackend(tmp_path, ntfs(disk))
    backend.publish(KEY, Content(b"old"))
    disk.hold("file", FOREVER)
    acts: list[Callable[[], None]] = [lambda: backend.publish(KEY, Content(b"new")), lambda: backend.delete(KEY)]
    for act in acts:
        with pytest.raises(StoreError, match="another one uses it"):
            act()
    assert files(tmp_path) == [KEY]
    assert bytes_of(backend, KEY) == b"old"
    assert sum(disk.slept) == pytest.approx(2 * 2.48)


def test_a_file_that_is_here_gets_a_second_name_and_no_copy(backend: LocalBackend, tmp_path: Path) -> None:
    source = tmp_path / "finished"
    source.write_bytes(b"weights")
    os.utime(source, (1, 1))
    backend.publish("blobs/one", Content(source))
    path = backend.local_path("blobs/one")
    assert path is not None
    assert path.samefile(source)
    assert backend.list("blobs/")[0].modified > 1, "its age in the store begins now"
    backend.publish("blobs/one", Content(source))
    source.unlink()
    assert bytes_of(backend, "blobs/one") == b"weights"
    assert files(backend.root) == ["blobs/one"]


def test_a_file_on_another_disk_is_copied(backend: LocalBackend) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == backend.root.parent.stat().st_dev:
        pytest.skip("there is no second disk: /dev/shm")
    source = elsewhere / f"foldfleet-{os.getpid()}"
    try:
        source.write_bytes(os.urandom(PART_BYTES) + b"end")
        backend.publish("blobs/one", Content(source))
        assert bytes_of(backend, "blobs/one") == source.read_bytes()
        path = backend.local_path("blobs/one")
        assert path is not None
        assert not path.samefile(source)
    finally:
        source.unlink(missing_ok=True)


def test_where_a_second_name_cannot_be_had_the_copy_tells_what_is_wrong(backend: LocalBackend, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        backend.publish("blobs/one", Content(tmp_path / "none"))
    with pytest.raises(StoreError, match="directory"):
        backend.publish("blobs/one", Content(tmp_path))  # no folder has a second name
    assert files(backend.root) == []


class FailingContent(Content):
    """Content that stops with a system's error after its first part, as a disk does that is full, or gone."""

    def __init__(self, number: int) -> None:
        super().__init__([b"half", b"rest"])
        self.number = number

    def __iter__(self) -> Iterator[memoryview]:
        yield next(super().__iter__())
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, StoreFullError), (errno.EDQUOT, StoreFullError), (errno.ESTALE, StoreDownError),
     (errno.EIO, StoreDownError), (errno.EROFS, StoreError)],
)  # fmt: skip
def test_a_disk_that_fails_in_mid_write_leaves_what_stood_and_is_named(
    backend: LocalBackend, number: int, kind: type[StoreError]
) -> None:
    backend.publish(KEY, Content(b"stood"))
    with pytest.raises(StoreError) as raised:
        backend.publish(KEY, FailingContent(number))
    assert type(raised.value) is kind
    assert raised.value.where.endswith("file")
    assert files(backend.root) == [KEY]
    assert bytes_of(backend, KEY) == b"stood"


def test_what_a_kill_left_is_no_key_but_a_leftover_that_can_be_deleted(backend: LocalBackend) -> None:
    class Killed(BaseException):
        pass

    class Dying(LocalBackend):
        @contextlib.contextmanager
        def _written(self, target: Path, content: Content) -> Iterator[Path]:
            self._make(target.parent)
            self._write(target.parent / ".0123456789abcdef.part", content)
            raise Killed
            yield target

    with pytest.raises(Killed):
        Dying(backend.root).publish("blobs/one", Content(b"half"))
    backend.publish(KEY, Content(b"whole"))
    assert [entry.key for entry in backend.list("")] == [KEY]
    (leftover,) = backend.leftovers()
    assert (leftover.key, leftover.bytes) == ("blobs/.0123456789abcdef.part", 4)
    backend.delete(leftover.key)
    assert files(backend.root) == [KEY]


def test_who_reads_while_a_file_is_replaced_gets_one_of_both_whole(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    old, new = b"o" * (PART_BYTES + 1), b"n" * (PART_BYTES + 1)
    backend.publish(KEY, Content(old))
    parts = backend.parts(KEY)
    assert parts is not None
    first = next(parts)
    backend.publish(KEY, Content(new))
    assert first + b"".join(parts) == old
    assert bytes_of(backend, KEY) == new


def test_new_folders_names_are_made_to_last_before_anything_in_them(tmp_path: Path) -> None:
    synced: list[Path] = []

    class Watching(PosixNames):
        def sync(self, folder: Path) -> None:
            synced.append(folder)
            super().sync(folder)

    store = tmp_path / "store"
    names: Names = Watching()
    LocalBackend(store, names).put_if_absent("commits/fold/1.json", b"one")
    assert synced == [tmp_path, store, store / "commits", store / "commits" / "fold"]
    synced.clear()
    LocalBackend(store, names).put_if_absent("commits/fold/2.json", b"two")
    assert synced == [store / "commits" / "fold"]


def test_a_share_that_syncs_no_folders_is_used_all_the_same() -> None:
    PosixNames().sync(Path("/dev/null"))  # where fsync answers EINVAL too


def test_a_listing_that_fails_is_explained(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StoreError, match="symbolic links"):
        LocalBackend(tmp_path).list("")


def test_only_looking_makes_nothing(backend: LocalBackend) -> None:
    assert backend.list("") == []
    assert backend.leftovers() == []
    assert backend.parts("results/none.json") is None
    assert backend.size("results/none.json") is None
    backend.delete("results/none.json")
    assert not backend.root.exists()


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_without_links_says_that_one_process_alone_can_commit_there(tmp_path: Path, code: int) -> None:
    def link(_source: Path, _target: Path) -> None:
        raise OSError(code, os.strerror(code))

    backend = LocalBackend(tmp_path / "store", PosixNames(link))
    with pytest.raises(NotExclusiveError, match="one process alone"):
        backend.put_if_absent(KEY, b"record")
    assert files(backend.root) == []
    backend.publish(KEY, Content(b"what needs no link"))
    assert bytes_of(backend, KEY) == b"what needs no link"


def test_a_folder_is_called_the_same_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk" / "here").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path / "disk" / "here")
    assert whole_path("../store") == tmp_path / "disk" / "store"
    assert whole_path("store") == tmp_path / "disk" / "here" / "store"
    assert whole_path(str(tmp_path / "link" / "store")) == tmp_path / "link" / "store"  # others may mount it so
