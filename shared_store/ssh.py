"""SSH links: opened when one is needed, given up when they fail, with every host and every user proven by keys.

A link is one connection with SFTP on it and an event loop in a daemon thread of its own; any thread may call through
it. What the user's SSH settings say holds: host aliases, ports, jump hosts, keys, the agent, known_hosts. No password
is ever asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import weakref
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from shared_store.errors import StoreDownError
from shared_store.ssh_login import Address, Login, explained, prepared

T = TypeVar("T")
_CONNECT_SECONDS = 30.0
REPLY_SECONDS = 120.0  # for one request on a connection that lives: a slow link may have a queue of others to carry
_GOODBYE_SECONDS = 2.0
_LAST_TURNS_SECONDS = 0.05  # for what closes behind a connection, jump hosts last
_SIGNS_OF_LIFE = 3  # asked for in the seconds of silence after which a connection is lost; routers forget quiet ones


class Link:
    """One connection that stands, with SFTP on it. `sftp` is for coroutines that are given to `call`."""

    sftp: asyncssh.SFTPClient
    _connection: asyncssh.SSHClientConnection | None = None
    _gone: asyncio.Task[None] | None = None  # done when SFTP on it has ended, whoever ended it

    def __init__(self, address: Address, config: Path | None, silence_seconds: float) -> None:
        self.users, self.given_up = 0, False  # kept by Links
        login = prepared(address, config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="sftp", daemon=True)
        logging.getLogger("asyncio").addFilter(_is_news)
        self._thread.start()
        try:
            with explained(login):
                self.submit(self._open(login, silence_seconds / (_SIGNS_OF_LIFE + 1))).result()
        except BaseException:
            self.close()
            raise
        self._where = address.url

    @property
    def alive(self) -> bool:
        """Whether calls can go through it, as far as is known. It is of no use to a forked process."""
        return self._thread.is_alive() and self._gone is not None and not self._gone.done()

    def submit(self, act: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `act` on the link's loop."""
        return asyncio.run_coroutine_threadsafe(act, self._loop)

    def call(self, act: Coroutine[Any, Any, T], seconds: float = REPLY_SECONDS) -> T:
        """The result of `act`, which has `seconds` (infinity where it sees to that itself).

        StoreDownError when the connection is lost or nothing comes back; the server's other answers are raised as
        asyncssh has them.
        """
        future = self.submit(self._watched(act, seconds))
        try:
            return future.result()
        except (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost, asyncssh.SFTPBadMessage) as error:
            raise self._down(error) from error
        except asyncssh.SFTPError:
            raise
        except (asyncssh.Error, OSError) as error:
            raise self._down(error) from error
        finally:
            future.cancel()  # where the person interrupted the waiting

    def close(self) -> None:
        """Say goodbye and end the thread, without waiting for it."""
        if self._thread.is_alive():
            self.submit(self._end())

    def _down(self, error: Exception) -> StoreDownError:
        what = f"the store does not answer ({str(error) or 'nothing comes back'})"
        mend = "look after the server and the network, then give the same command again; nothing that stood is lost"
        return StoreDownError(what, where=self._where, mend=mend)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _open(self, login: Login, keepalive_seconds: float) -> None:
        async with asyncio.timeout(_CONNECT_SECONDS):
            self._connection = await asyncssh.connect(
                login.address.host,
                login.port,
                options=login.options,
                config=login.files,
                keepalive_interval=keepalive_seconds,
                keepalive_count_max=_SIGNS_OF_LIFE,
            )
            try:
                self.sftp = await self._connection.start_sftp_client()
            except asyncssh.ChannelOpenError as error:
                if self._connection.is_closed():  # that is why
                    raise asyncssh.ConnectionLost("Connection lost") from error
                raise
        self._gone = asyncio.ensure_future(self.sftp.wait_closed())

    async def _watched(self, act: Coroutine[Any, Any, T], seconds: float) -> T:
        """Requests that are made while a connection ends are answered by nobody: notice that at once."""
        assert self._gone is not None
        task = asyncio.ensure_future(act)
        try:
            await asyncio.wait({task, self._gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise asyncssh.SFTPConnectionLost("the connection is lost") if self._gone.done() else TimeoutError
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            try:
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await self._connection.wait_closed()
            except TimeoutError:
                self._connection.abort()
                await self._connection.wait_closed()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()
        await asyncio.sleep(_LAST_TURNS_SECONDS)
        self._loop.stop()


class Links:
    """The link that calls go through. One that is given up ends with its last call, so that none is cut off."""

    def __init__(self, address: Address, config: Path | None, silence_seconds: float) -> None:
        self._address, self._config, self._silence_seconds = address, config, silence_seconds
        self._opening = threading.Lock()
        self._lock = threading.RLock()  # a generator's end, at any moment, may give a link back
        self._link: Link | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[Link]:
        """The link that stands, or a new one; after a StoreDownError the next call gets a new one."""
        link = self._take()
        try:
            yield link
        except StoreDownError:
            self._give_up(link)
            raise
        finally:
            self._give_back(link)

    def close(self) -> None:
        """Let the link go; the next call opens a new one, with keys and settings read anew."""
        with self._lock:
            if self._link is not None:
                self._give_up(self._link)

    def _take(self) -> Link:
        return self._standing() or self._opened()

    def _standing(self) -> Link | None:
        with self._lock:
            if self._link is not None and not self._link.alive:
                self._give_up(self._link)
            if self._link is not None:
                self._link.users += 1
            return self._link

    def _opened(self) -> Link:
        with self._opening:  # by one thread; the others find it standing
            if link := self._standing():
                return link
            link = Link(self._address, self._config, self._silence_seconds)
            with self._lock:
                self._link, link.users = link, 1
                self._forgotten = weakref.finalize(self, link.close)
                self._forgotten.atexit = False
            return link

    def _give_up(self, link: Link) -> None:
        with self._lock:
            link.given_up = True
            if self._link is link:
                self._link = None
                self._forgotten.detach()
            self._close_unused(link)

    def _give_back(self, link: Link) -> None:
        with self._lock:
            link.users -= 1
            self._close_unused(link)

    def _close_unused(self, link: Link) -> None:
        if link.given_up and link.users == 0:
            link.close()


def _is_news(record: logging.LogRecord) -> bool:
    """Each write to a connection that was lost is logged until asyncssh notices, and then we say it once."""
    return record.msg != "socket.send() raised exception."
