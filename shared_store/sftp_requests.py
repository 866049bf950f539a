"""What goes over an SFTP session: files written and read in blocks of which many are under way at once, and names.

Coroutines for the link's own loop. The server's answers are raised as asyncssh has them, silence as TimeoutError.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TypeVar

import asyncssh

from shared_store.backend import PART_BYTES
from shared_store.ssh import REPLY_SECONDS

T = TypeVar("T")
BLOCK_BYTES = 255 * 2**10  # the most that OpenSSH takes in one request


class Reader:
    """An open file's bytes from `place` on, asked for up to two parts ahead; used on the link's loop alone."""

    def __init__(self, file: asyncssh.SFTPClientFile, place: int, limit_bytes: int) -> None:
        self._file, self._place, self._block_bytes = file, place, min(BLOCK_BYTES, limit_bytes)
        self._end: int | None = None
        self._blocks: deque[asyncio.Task[bytes]] = deque()

    async def part(self) -> bytes:
        """The next part; b"" at the end. TimeoutError when no block comes for REPLY_SECONDS."""
        blocks, taken = [], 0
        async with asyncio.timeout_at(_patience()) as patience:
            if self._end is None:
                self._end = (await self._file.stat()).size or 0
            self._ask()
            while self._blocks and taken < PART_BYTES:
                blocks.append(await self._blocks.popleft())
                taken += len(blocks[-1])
                self._ask()
                patience.reschedule(_patience())
        return b"".join(blocks)

    async def close(self) -> None:
        await _give_up(self._blocks)
        with contextlib.suppress(asyncssh.Error, OSError):
            await self._file.close()

    def _ask(self) -> None:
        assert self._end is not None
        while self._place < self._end and len(self._blocks) * self._block_bytes < 2 * PART_BYTES:
            size = min(self._block_bytes, self._end - self._place)
            self._blocks.append(asyncio.ensure_future(self._block(self._place, size)))
            self._place += size

    async def _block(self, place: int, size: int) -> bytes:
        """A server may give less than it is asked for."""
        block: bytes = await self._file.read(size, place)
        while len(block) < size:
            more: bytes = await self._file.read(size - len(block), place + len(block))
            if not more:
                raise asyncssh.SFTPConnectionLost("a file was cut short while it was read")
            block += more
        return block


async def open_file(sftp: asyncssh.SFTPClient, path: str) -> asyncssh.SFTPClientFile:
    """A file to be read in blocks."""
    return await sftp.open(path, "rb", block_size=None)


async def create(sftp: asyncssh.SFTPClient, path: str) -> asyncssh.SFTPClientFile:
    """A new file; its folders are made when the server says that they are missing."""
    try:
        return await sftp.open(path, "xb", block_size=None)
    except asyncssh.SFTPNoSuchFile:
        await sftp.makedirs(folder(path), exist_ok=True)
        return await sftp.open(path, "xb", block_size=None)


async def send(file: asyncssh.SFTPClientFile, place: int, part: memoryview, limit_bytes: int) -> None:
    """Write one part in blocks of at most `limit_bytes`, all under way at once.

    TimeoutError when none is taken for REPLY_SECONDS. Whoever paces content measures how long this takes, so nothing
    is left under way when it returns.
    """
    block_bytes = min(BLOCK_BYTES, limit_bytes)
    blocks = deque(
        asyncio.ensure_future(file.write(bytes(part[start : start + block_bytes]), place + start))
        for start in range(0, len(part), block_bytes)
    )
    try:
        async with asyncio.timeout_at(_patience()) as patience:
            while blocks:
                await blocks[0]
                blocks.popleft()
                patience.reschedule(_patience())
    finally:
        await _give_up(blocks)


async def _give_up(tasks: deque[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def finish(file: asyncssh.SFTPClientFile) -> None:
    """Have all bytes on the server's disk (where it knows how to), and hear of what only closing shows."""
    with contextlib.suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()
    await file.close()


async def settle(sftp: asyncssh.SFTPClient, target: str) -> None:
    """Make a new name survive a power cut, where the server lets a folder be synced like a file."""
    with contextlib.suppress(asyncssh.SFTPOpUnsupported, asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied):
        async with sftp.open(folder(target), "rb") as opened:
            await opened.fsync()


async def replace(sftp: asyncssh.SFTPClient, source: str, target: str) -> None:
    """Give a file a name, whatever had it. Where the server cannot do that at once, there is a moment with neither."""
    try:
        await sftp.posix_rename(source, target)
    except asyncssh.SFTPOpUnsupported:
        try:
            await sftp.rename(source, target)
        except asyncssh.SFTPFailure:
            await sftp.remove(target)
            await sftp.rename(source, target)


async def names(sftp: asyncssh.SFTPClient, folder: str) -> list[tuple[str, asyncssh.SFTPAttrs]]:
    """What lies in a folder, with attributes; nothing where there is none."""
    found = []
    async with asyncio.timeout_at(_patience()) as patience:
        with contextlib.suppress(asyncssh.SFTPNoSuchFile):
            async for name in sftp.scandir(folder):
                found.append((str(name.filename), name.attrs))
                if len(found) % 100 == 0:  # about what one answer has
                    patience.reschedule(_patience())
    return found


def folder(path: str) -> str:
    """The folder that a path is in."""
    return path.rpartition("/")[0] or "/"


def _patience() -> float:
    """Until when something must have happened, on the loop's clock."""
    return asyncio.get_running_loop().time() + REPLY_SECONDS
