"""An SFTP server, not OpenSSH's, whose disk takes no more bytes: full, or one's quota is. No test in here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
from sshd import SshServer


class _Full(asyncssh.SFTPServer):
    """Refuses to write; `statvfs` tells of `free_blocks`."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], error: int, free_blocks: int) -> None:
        super().__init__(channel)
        self._error, self._free_blocks = error, free_blocks

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        raise OSError(self._error, os.strerror(self._error))

    def statvfs(self, path: bytes) -> asyncssh.SFTPVFSAttrs:
        free = self._free_blocks
        return asyncssh.SFTPVFSAttrs(
            bsize=4096, frsize=4096, blocks=10**6, bfree=free, bavail=free, files=10**6, ffree=1, favail=1
        )


@contextlib.contextmanager
def running_without_room(folder: Path, quota: bool) -> Iterator[SshServer]:
    """Such a server, with keys as `SshServer` makes them. With `quota` the disk itself has room."""
    server = SshServer(folder)
    server.prepare()
    error, free_blocks = (errno.EDQUOT, 10**6) if quota else (errno.ENOSPC, 0)
    ready, over = threading.Event(), threading.Event()

    connections: list[asyncssh.SSHServerConnection] = []

    class Door(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            connections.append(conn)

    async def serve() -> None:
        acceptor = await asyncssh.create_server(
            Door,
            "127.0.0.1",
            server.port,
            server_host_keys=[str(folder / "host_key")],
            authorized_client_keys=str(folder / "authorized_keys"),
            sftp_factory=lambda channel: _Full(channel, error, free_blocks),
        )
        ready.set()
        await asyncio.to_thread(over.wait)
        acceptor.close()
        await acceptor.wait_closed()
        for connection in connections:
            connection.abort()
            await connection.wait_closed()
        await asyncio.sleep(0.05)  # for their sockets

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield server
    finally:
        over.set()
        thread.join(20)
