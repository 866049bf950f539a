"""A relay between a client and a server on this machine that does harm on its way. No test in here.

It reads the first lines of what comes on a connection, then lets it pass, unless a rule for such lines stands.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_CHUNK_BYTES = 65_536
_GO_ON = b"HTTP/1.1 100"
Harm = Callable[[socket.socket, socket.socket, bytes], None]
"""Given the client, the server and what was read of the request already; both are closed afterwards."""


def lose_the_answer(client: socket.socket, server: socket.socket, head: bytes) -> None:
    """The server gets the whole request and answers it; the client never hears of it."""
    with _forwarding(client, server, head):
        while data := server.recv(_CHUNK_BYTES):
            if data.startswith(_GO_ON):  # no answer yet: the client keeps its body until it hears this
                client.sendall(data[: data.index(b"\r\n\r\n") + 4])


def cut_the_request(client: socket.socket, server: socket.socket, head: bytes) -> None:
    """The connection ends after the first lines, before the server has any."""


def cut_the_answer(client: socket.socket, server: socket.socket, head: bytes) -> None:
    """The connection ends in the middle of the answer."""
    with _forwarding(client, server, head):
        client.sendall(server.recv(_CHUNK_BYTES, socket.MSG_WAITALL))


def stay_silent(client: socket.socket, server: socket.socket, head: bytes) -> None:
    """Nobody answers, until the client gives up."""
    while client.recv(_CHUNK_BYTES):
        pass


def answering(status: str, code: str) -> Harm:
    """S3's error of that status and code instead of the server's answer."""

    def answer(client: socket.socket, server: socket.socket, head: bytes) -> None:
        body = f"<Error><Code>{code}</Code><Message>said the relay</Message></Error>".encode()
        client.settimeout(0.2)
        with contextlib.suppress(TimeoutError):  # all of the request, or it would meet a closed door
            while client.recv(_CHUNK_BYTES):
                pass
        lines = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{lines}Connection: close\r\n\r\n".encode() + body)

    return answer


@dataclass
class _Rule:
    harm: Harm
    containing: bytes
    times: int


class Relay:
    """Listens on a port of its own and forwards every connection to `port`."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.seen: list[str] = []  # the first lines of every connection
        self._serve()

    def harm(self, harm: Harm, containing: str, times: int = 1) -> None:
        """Do `harm` to the next `times` connections whose first lines have `containing` in them."""
        self._rules.append(_Rule(harm, containing.encode(), times))

    def down(self) -> None:
        """From now on nobody listens."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def up(self) -> None:
        """Listen again, at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._serve()

    def _serve(self) -> None:
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed by `down`
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        # Whoever is harmed hangs up when it likes.
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._server_port)) as server:
            head = client.recv(_CHUNK_BYTES)
            while b"\r\n\r\n" not in head and (more := client.recv(_CHUNK_BYTES)):
                head += more
            self.seen.append(head.decode("latin-1"))
            self._harm_of(head)(client, server, head)

    def _harm_of(self, head: bytes) -> Harm:
        with self._lock:
            for rule in self._rules:
                if rule.times and rule.containing in head:
                    rule.times -= 1
                    return rule.harm
        return _pass


def _pass(client: socket.socket, server: socket.socket, head: bytes) -> None:
    with _forwarding(client, server, head):
        while data := server.recv(_CHUNK_BYTES):
            client.sendall(data)


@contextlib.contextmanager
def _forwarding(client: socket.socket, server: socket.socket, head: bytes) -> Iterator[None]:
    """What the client sends goes to the server beside what is done here."""

    def forward() -> None:
        with contextlib.suppress(OSError):
            server.sendall(head)
            while data := client.recv(_CHUNK_BYTES):
                server.sendall(data)

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    yield
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@contextlib.contextmanager
def relaying(port: int) -> Iterator[Relay]:
    """A relay to `port` on this machine, ended afterwards."""
    relay = Relay(port)
    yield relay
    relay.down()
