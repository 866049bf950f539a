"""A wire between a client and a server on this machine that can be cut, or go dead. No test in here."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Asked = Callable[[], bool]


class Wire:
    """Listens on `port` and carries every connection's bytes, whatever they mean, to `server_port` and back."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._cut_when: Asked | None = None
        self.cuts = 0
        self._lock = threading.Lock()
        self._carries = threading.Event()
        self._carries.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_when(self, asked: Asked) -> None:
        """Cut the connection, once, where the server sends something while `asked` is true; that is lost."""
        self._cut_when = asked

    def go_dead(self) -> None:
        """From now on nothing is carried and nobody hangs up."""
        self._carries.clear()

    def mend(self) -> None:
        """Carry again."""
        self._carries.set()

    def close(self) -> None:
        """Listen no more."""
        self.mend()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                threading.Thread(target=self._carry, args=(client, server, lambda: False), daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, self._is_cut), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, is_cut: Asked) -> None:
        with contextlib.suppress(OSError):
            while (piece := source.recv(65_536)) and not is_cut():
                self._carries.wait()
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def _is_cut(self) -> bool:
        with self._lock:
            cut = self._cut_when is not None and self._cut_when()
            if cut:
                self._cut_when = None
                self.cuts += 1
            return cut


@contextlib.contextmanager
def wired(server_port: int) -> Iterator[Wire]:
    """A wire to `server_port` on this machine."""
    wire = Wire(server_port)
    try:
        yield wire
    finally:
        wire.close()
