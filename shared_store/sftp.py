"""An SFTP server as a store: `sftp://user@host/folder`, on any machine that runs sshd.

A name is claimed by SFTP's plain RENAME, which OpenSSH carries out by `link` and refuses where the name is taken; it is
replaced by OpenSSH's `posix-rename`. Bytes are written to a hidden temporary beside the target, in blocks of which many
are under way at once, and synced where the server can.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncssh

from shared_store import sftp_requests as requests
from shared_store.backend import Content, Entry
from shared_store.errors import StoreDownError, StoreError, StoreFullError
from shared_store.ssh import Link, Links
from shared_store.ssh_login import Address

_SYNC_SECONDS = 300.0  # a slow disk may have a whole file to write first
_LITTLE_BYTES = 2**20
_PART = ".part"
CONFIG_VARIABLE = "FOLDFLEET_SSH_CONFIG"
"""Names a file of SSH settings to be used instead of ~/.ssh/config, as `ssh -F` does."""


class SftpBackend:
    """A folder on an SFTP server. Opened by URL alone; nothing is connected before the first call.

    A connection on which nothing is heard for `silence_seconds`, asked for a sign of life meanwhile, is lost.
    """

    def __init__(self, url: str, config: Path | None = None, silence_seconds: float = 30.0) -> None:
        named = os.environ.get(CONFIG_VARIABLE)
        address = Address.of(url)
        self.url, self._root = address.url, address.path
        self._links = Links(address, config or (Path(named) if named else None), silence_seconds)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with self._links.held() as link, self._explained(link, target):
            if _size(link, target) is not None:
                return False
            with self._written(link, target, Content(data)) as temporary:
                try:
                    link.call(link.sftp.rename(temporary, target))
                except asyncssh.SFTPFailure:  # SFTP has no word of its own for a name that is taken
                    if _size(link, target) is None:
                        raise
                    link.call(link.sftp.remove(temporary))
                    return False
            link.call(requests.settle(link.sftp, target), _SYNC_SECONDS)
            return True

    def publish(self, key: str, content: Content) -> None:
        target = self._path(key)
        with self._links.held() as link, self._explained(link, target):
            with self._written(link, target, content) as temporary:
                link.call(requests.replace(link.sftp, temporary, target))
            link.call(requests.settle(link.sftp, target), _SYNC_SECONDS)

    def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
        reading = self._read(self._path(key), start)
        return None if next(reading, None) is None else reading

    def _read(self, target: str, start: int) -> Iterator[bytes]:
        """First b"" once the file is open, so that a generator which nobody reads from closes it; then its parts."""
        with self._links.held() as link, self._explained(link, target):
            try:
                file = link.call(requests.open_file(link.sftp, target))
            except asyncssh.SFTPNoSuchFile:
                return
            reader = requests.Reader(file, start, link.sftp.limits.max_read_len)
            try:
                yield b""
                while part := link.call(reader.part(), math.inf):
                    yield part
            finally:
                link.submit(reader.close())  # not waited for: this may be anywhere, the link's own thread too

    def size(self, key: str) -> int | None:
        with self._links.held() as link, self._explained(link, self._path(key)):
            return _size(link, self._path(key))

    def move(self, key: str, to: str) -> None:
        source, target = self._path(key), self._path(to)
        with self._links.held() as link, self._explained(link, target):
            try:
                link.call(requests.replace(link.sftp, source, target))
            except asyncssh.SFTPNoSuchFile:  # the source, or the target's folder
                if _size(link, source) is None:
                    return
                link.call(link.sftp.makedirs(requests.folder(target), exist_ok=True))
                link.call(requests.replace(link.sftp, source, target))
            link.call(requests.settle(link.sftp, target), _SYNC_SECONDS)

    def delete(self, key: str) -> None:
        target = self._path(key)
        with self._links.held() as link, self._explained(link, target), contextlib.suppress(asyncssh.SFTPNoSuchFile):
            link.call(link.sftp.remove(target))

    def local_path(self, key: str) -> Path | None:
        return None

    def close(self) -> None:
        self._links.close()

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"

    def _files(self, folder: str, hidden: bool) -> Sequence[Entry]:
        with self._links.held() as link, self._explained(link, self._path(folder)):
            found, folders = [], [folder]
            while folders:
                within = folders.pop()
                listed = requests.names(link.sftp, self._path(within).rstrip("/") or "/")
                for name, attributes in link.call(listed, math.inf):
                    key = f"{within}/{name}" if within else name
                    mode, is_hidden = attributes.permissions or 0, name.startswith(".")
                    if stat.S_ISDIR(mode) and not is_hidden:
                        folders.append(key)
                    elif stat.S_ISREG(mode) and is_hidden is hidden:
                        found.append(Entry(key, attributes.size or 0, float(attributes.mtime or 0)))
        return sorted(found, key=lambda entry: entry.key)

    def list(self, prefix: str) -> list[Entry]:
        within = prefix.rpartition("/")[0]
        return [entry for entry in self._files(within, hidden=False) if entry.key.startswith(prefix)]

    def leftovers(self) -> Sequence[Entry]:
        return [entry for entry in self._files("", hidden=True) if entry.key.endswith(_PART)]

    @contextlib.contextmanager
    def _written(self, link: Link, target: str, content: Content) -> Iterator[str]:
        """A synced temporary beside `target`, to be renamed; removed on any error while the connection stands."""
        temporary = f"{requests.folder(target)}/.{secrets.token_hex(8)}{_PART}"
        try:
            self._write(link, temporary, content)
            yield temporary
        except BaseException:
            if link.alive:
                with contextlib.suppress(asyncssh.SFTPError, StoreDownError):
                    link.call(link.sftp.remove(temporary))
            raise

    def _write(self, link: Link, temporary: str, content: Content) -> None:
        file = link.call(requests.create(link.sftp, temporary))
        try:
            place = 0
            for part in content:
                with self._unless_full(link, temporary):
                    link.call(requests.send(file, place, part, link.sftp.limits.max_write_len), math.inf)
                place += len(part)
            with self._unless_full(link, temporary):
                link.call(requests.finish(file), _SYNC_SECONDS)
        except BaseException:
            link.submit(file.close())  # looked at before the next request
            raise

    @contextlib.contextmanager
    def _explained(self, link: Link, target: str) -> Iterator[None]:
        """Turn the server's answer into words that say how to mend it."""
        try:
            yield
        except asyncssh.SFTPError as error:
            if isinstance(error, asyncssh.SFTPFailure) and _has_no_room(link, target):
                raise self._full(target, "the store's disk is full") from error
            mend = "give --store a folder there that you may write to (see it with `sftp`); nothing that stood is lost"
            what = f"the store cannot be used (the SFTP server says: {error.reason})"
            raise StoreError(what, where=f"{self.url}: {target}", mend=mend) from error

    @contextlib.contextmanager
    def _unless_full(self, link: Link, temporary: str) -> Iterator[None]:
        """An open file takes no more bytes when the disk is full or a quota is used up: SFTP says `Failure` to both."""
        try:
            yield
        except asyncssh.SFTPFailure as error:
            full = _has_no_room(link, temporary)
            what = "disk is full" if full else "disk or your quota there is full (or the disk fails)"
            raise self._full(temporary, f"the store's {what}") from error

    def _full(self, target: str, what: str) -> StoreFullError:
        mend = "free some space there (or give --store another place), then give the same command again"
        return StoreFullError(what, where=f"{self.url}: {target}", mend=mend)


def _size(link: Link, path: str) -> int | None:
    try:
        return link.call(link.sftp.stat(path)).size
    except asyncssh.SFTPNoSuchFile:
        return None


def _has_no_room(link: Link, path: str) -> bool:
    """Whether the disk there is full as far as the server tells (a quota it does not)."""
    try:
        disk = link.call(link.sftp.statvfs(requests.folder(path)))
    except (asyncssh.SFTPError, StoreDownError):
        return False
    return disk.bavail * disk.frsize < _LITTLE_BYTES or (disk.files > 0 and disk.favail == 0)
