"""What is special to SFTP: who is trusted, lost connections at the worst moments, full disks, lesser servers."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sftp_without_room import running_without_room
from sshd import SshServer, make_key, running_sshd
from wire import Wire, wired

from shared_store.backend import PART_BYTES, Content
from shared_store.errors import StoreDownError, StoreError, StoreFullError, StoreRefusedError
from shared_store.retrying import Retrying
from shared_store.sftp import SftpBackend
from shared_store.ssh import Link
from shared_store.ssh_login import Address
from shared_store.store import Store, open_store

LARGE = os.urandom(3 * PART_BYTES + 1)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[SshServer]:
    """A server for one test, which may change its keys, and kill it."""
    with running_sshd(tmp_path / "sshd") as server:
        yield server


def opened(server: SshServer, folder: Path, port: int | None = None) -> SftpBackend:
    return SftpBackend(server.url(folder, port), server.config)


def patient(backend: SftpBackend, sleep: Callable[[float], object] = time.sleep) -> Retrying:
    return Retrying(backend, sleep=sleep)


def content(backend: SftpBackend | Retrying, key: str) -> bytes | None:
    parts = backend.parts(key)
    return None if parts is None else b"".join(parts)


def commands(error: StoreError) -> list[str]:
    return re.findall(r"`([^`]+)`", error.mend)


# Who is trusted


def test_an_unknown_host_is_refused_and_the_command_that_is_named_mends_it(mortal: SshServer, tmp_path: Path) -> None:
    mortal.known_hosts.write_text("", encoding="utf-8")
    backend = opened(mortal, tmp_path / "store")
    with pytest.raises(StoreError, match=r"not known \(ssh-ed25519 SHA256:") as caught:
        backend.size("runs/file")
    assert not isinstance(caught.value, StoreDownError | StoreRefusedError), "patience does not help"
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(mortal.folder / "host_key.pub")], check=True, capture_output=True, text=True
    )
    assert shown.stdout.split()[1] in caught.value.what, "the fingerprint to compare"
    (scan,) = [command for command in commands(caught.value) if command.startswith("ssh-keyscan")]
    assert scan == f"ssh-keyscan -H -p {mortal.port} 127.0.0.1 >> {mortal.known_hosts}"
    subprocess.run(scan, shell=True, check=True, stderr=subprocess.DEVNULL)
    assert backend.size("runs/file") is None
    backend.close()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_host_whose_key_changed_is_refused_and_the_commands_mend_it(
    mortal: SshServer, tmp_path: Path, kind: str
) -> None:
    other = tmp_path / "other"
    make_key(other, kind)
    key_type, key, *_ = (tmp_path / "other.pub").read_text(encoding="utf-8").split()
    mortal.known_hosts.write_text(f"[127.0.0.1]:{mortal.port} {key_type} {key}\n", encoding="utf-8")
    backend = opened(mortal, tmp_path / "store")
    with pytest.raises(StoreError, match="host key has changed") as caught:
        backend.size("runs/file")
    for command in commands(caught.value)[1:]:  # the first is for the person at the server
        subprocess.run(command, shell=True, check=True, capture_output=True)
    assert backend.size("runs/file") is None
    backend.close()


def test_settings_that_trust_nobody_do_not_trust_everybody(mortal: SshServer, tmp_path: Path) -> None:
    settings = mortal.config.read_text(encoding="utf-8")
    mortal.config.write_text(re.sub("UserKnownHostsFile .*", "UserKnownHostsFile none", settings), encoding="utf-8")
    with pytest.raises(StoreError, match="host key is not known"):
        opened(mortal, tmp_path / "store").size("runs/file")


def test_a_key_that_was_revoked_is_not_offered_for_adding(mortal: SshServer, tmp_path: Path) -> None:
    known = mortal.known_hosts.read_text(encoding="utf-8")
    mortal.known_hosts.write_text(f"{known}@revoked {known}", encoding="utf-8")
    with pytest.raises(StoreError, match="host key is revoked") as caught:
        opened(mortal, tmp_path / "store").size("runs/file")
    assert "ssh-keyscan" not in caught.value.mend


def test_a_key_that_is_not_accepted_is_refused_and_is_read_anew_when_it_is(mortal: SshServer, tmp_path: Path) -> None:
    (mortal.folder / "client_key").rename(tmp_path / "right")
    (mortal.folder / "client_key.pub").unlink()
    make_key(mortal.folder / "client_key")
    (mortal.folder / "client_key.pub").unlink()
    backend = opened(mortal, tmp_path / "store")
    with pytest.raises(StoreRefusedError, match="did not accept") as caught:
        backend.size("runs/file")
    assert f"ssh-copy-id -p {mortal.port} {mortal.user}@127.0.0.1" in commands(caught.value)
    mended = patient(backend, lambda _seconds: (tmp_path / "right").replace(mortal.folder / "client_key"))
    assert mended.size("runs/file") is None
    backend.close()


def test_the_users_ssh_settings_name_host_port_user_and_the_way_there(server: SshServer, tmp_path: Path) -> None:
    settings = tmp_path / "config"
    here = f"  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
    settings.write_text(
        f"Host gpu-box\n{here}  ProxyJump gate\n  IdentityFile {tmp_path}/not-there\n"
        f"Host gate\n{here}Host *\n" + server.config.read_text(encoding="utf-8"),
        encoding="utf-8",
    )
    before = _logins(server)
    backend = SftpBackend(f"sftp://gpu-box{tmp_path}/store", settings)
    backend.publish("runs/file", Content(b"kept"))
    assert (tmp_path / "store/runs/file").read_bytes() == b"kept"
    assert _logins(server) - before == 2, "at the gate and behind it"
    backend.close()


def _logins(server: SshServer) -> int:
    return (server.folder / "sshd.log").read_text(encoding="utf-8").count("Accepted publickey")


def test_settings_that_cannot_be_read_are_named(server: SshServer, tmp_path: Path) -> None:
    settings = tmp_path / "config"
    with pytest.raises(StoreError, match=str(settings)):
        SftpBackend(server.url(tmp_path), settings).size("runs/file")
    settings.write_text("Port many\n", encoding="utf-8")
    with pytest.raises(StoreError, match="Invalid Port"):
        SftpBackend(server.url(tmp_path), settings).size("runs/file")


def test_a_server_without_sftp_is_told_from_one_that_is_away(tmp_path: Path) -> None:
    server = SshServer(tmp_path / "sshd")
    server.prepare()
    with pytest.raises(StoreDownError, match="cannot be reached"):
        opened(server, tmp_path / "store").size("runs/file")
    settings = server.folder / "sshd_config"
    settings.write_text(re.sub("Subsystem .*", "", settings.read_text(encoding="utf-8")), encoding="utf-8")
    server.start()
    try:
        with pytest.raises(StoreError, match="no SFTP session") as caught:
            opened(server, tmp_path / "store").size("runs/file")
        assert not isinstance(caught.value, StoreDownError)
    finally:
        server.stop(connections=True)


# Addresses


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "path"),
    [
        ("sftp://host/data/store", "host", None, None, "/data/store"),
        ("sftp://me@host:2222/data/my%20store/", "host", 2222, "me", "/data/my store"),
        ("sftp://host/~/store", "host", None, None, "store"),
        ("sftp://a%40b@[::1]/", "::1", None, "a@b", "/"),
    ],
)
def test_an_address_is_taken_apart(url: str, host: str, port: int | None, user: str | None, path: str) -> None:
    assert Address.of(url) == Address(url, host, port, user, path)


@pytest.mark.parametrize("url", ["sftp://host", "sftp:///data", "sftp://host:many/data", "sftp://host/data?x=1"])
def test_what_is_no_address_is_refused_with_one(url: str) -> None:
    with pytest.raises(StoreError, match="sftp://user@host/folder"):
        open_store(url)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(StoreError, match="password") as caught:
        open_store("sftp://me:hunter2@host/data")
    assert "hunter2" not in str(caught.value)


def test_a_path_below_home_is_there(server: SshServer, tmp_path: Path) -> None:
    place = Path(os.path.relpath(tmp_path / "store", Path.home()))
    backend = SftpBackend(server.url(f"/~/{place.as_posix()}"), server.config)
    assert backend.put_if_absent("results/fold.json", b"kept")
    assert (tmp_path / "store/results/fold.json").read_bytes() == b"kept"
    assert [entry.key for entry in backend.list("")] == ["results/fold.json"]
    backend.close()


# Connections that are lost


def test_a_server_killed_in_mid_transfer_and_back_leaves_nothing_torn(mortal: SshServer, tmp_path: Path) -> None:
    class Killing(Content):
        """Kills the server between its first parts, once."""

        killed = False

        def __iter__(self) -> Iterator[memoryview]:
            for part in super().__iter__():
                yield part
                if not self.killed:
                    Killing.killed = True
                    mortal.stop(connections=True)

    waits = list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:  # it was away for some tries
            mortal.start()

    backend = opened(mortal, tmp_path / "store")
    backend.publish("runs/file", Content(b"stood"))
    patient(backend, sleep).publish("runs/file", Killing(LARGE))
    assert len(waits) == 2
    assert content(backend, "runs/file") == LARGE
    assert [entry.key for entry in backend.list("")] == ["runs/file"]

    parts = patient(backend, lambda _seconds: mortal.start()).parts("runs/file")
    assert parts is not None
    read = [bytes(next(parts))]
    mortal.stop(connections=True)
    assert b"".join([*read, *parts]) == LARGE, "reading goes on from where it was cut off"
    backend.close()


@pytest.fixture
def wire(server: SshServer) -> Iterator[Wire]:
    with wired(server.port) as wire:
        server.trust(f"[127.0.0.1]:{wire.port}")
        yield wire


def test_a_record_whose_acknowledgement_is_lost_is_neither_lost_nor_doubled(
    server: SshServer, wire: Wire, tmp_path: Path
) -> None:
    backend, target = opened(server, tmp_path / "store", wire.port), tmp_path / "store/results/fold.json"
    assert backend.size("results/fold.json") is None
    wire.cut_when(target.exists)  # the server renamed; its answer is what is lost
    assert Store(patient(backend)).put_if_absent("results/fold.json", b"mine")
    assert wire.cuts == 1
    assert target.read_bytes() == b"mine"
    assert not Store(backend).put_if_absent("results/fold.json", b"another's")
    assert [entry.key for entry in backend.list("")] == ["results/fold.json"]
    assert backend.leftovers() == []
    backend.close()


def test_a_file_whose_acknowledgement_is_lost_is_published_again(server: SshServer, wire: Wire, tmp_path: Path) -> None:
    backend, target = opened(server, tmp_path / "store", wire.port), tmp_path / "store/runs/file"
    wire.cut_when(target.exists)
    patient(backend).publish("runs/file", Content(LARGE))
    assert wire.cuts == 1
    assert target.read_bytes() == LARGE
    backend.close()


def test_what_a_lost_connection_leaves_is_hidden_and_can_be_removed(
    server: SshServer, wire: Wire, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    backend = opened(server, store, wire.port)
    backend.publish("blobs/other", Content(b"stood"))

    def half_is_there() -> bool:
        return any(path.stat().st_size >= PART_BYTES for path in store.glob("blobs/.*"))

    wire.cut_when(half_is_there)
    patient(backend).publish("blobs/large", Content(LARGE))
    assert wire.cuts == 1
    assert [entry.key for entry in backend.list("")] == ["blobs/large", "blobs/other"]
    (left,) = backend.leftovers()
    assert left.bytes >= PART_BYTES
    backend.delete(left.key)
    assert backend.leftovers() == []
    backend.close()


def test_a_killed_writer_leaves_nothing_that_can_be_mistaken(server: SshServer, tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from shared_store.backend import Content
from shared_store.sftp import SftpBackend

class Stuck(Content):
    def __iter__(self):
        for part in super().__iter__():
            yield part
            print("half", flush=True)
            time.sleep(60)

SftpBackend({server.url(tmp_path / "store")!r}, Path({str(server.config)!r})).publish("blobs/x", Stuck(bytes({2**20})))
"""
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.kill()
    backend = opened(server, tmp_path / "store")
    assert backend.size("blobs/x") is None
    assert backend.list("") == []
    assert [(entry.key.startswith("blobs/."), entry.bytes) for entry in backend.leftovers()] == [(True, 2**20)]
    backend.close()


def test_a_connection_that_nothing_comes_from_is_lost(server: SshServer, wire: Wire, tmp_path: Path) -> None:
    backend = SftpBackend(server.url(tmp_path / "store", wire.port), server.config, silence_seconds=0.5)
    backend.publish("runs/file", Content(b"stood"))
    wire.go_dead()
    with pytest.raises(StoreDownError, match="does not answer"):
        backend.size("runs/file")
    wire.mend()
    assert backend.size("runs/file") == 5
    backend.close()


def test_letting_go_of_the_connection_cuts_nobody_off(server: SshServer, tmp_path: Path) -> None:
    backend = opened(server, tmp_path / "store")
    backend.publish("runs/file", Content(LARGE))
    parts = backend.parts("runs/file")
    assert parts is not None
    first = next(parts)
    backend.close()
    assert backend.size("runs/file") == len(LARGE), "on a new connection"
    assert first + b"".join(parts) == LARGE
    backend.close()


def test_a_store_that_is_forgotten_holds_no_connection_nor_does_reading_that_is_given_up(
    server: SshServer, tmp_path: Path
) -> None:
    backend = opened(server, tmp_path / "store")
    backend.publish("runs/file", Content(LARGE))
    for began in (False, True):
        parts = backend.parts("runs/file")
        assert parts is not None
        if began:
            next(parts)
        del parts
        backend.close()
    assert backend.size("runs/file") == len(LARGE)
    del backend
    gc.collect()
    until = time.monotonic() + 30
    while any(thread.name == "sftp" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


# Disks and servers


def test_a_folder_that_may_not_be_written_is_told_with_a_way_out(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd", ["-R"]) as server:
        backend = opened(server, tmp_path / "store")
        for act in (
            lambda: backend.put_if_absent("results/fold.json", b"x"),
            lambda: backend.publish("runs/file", Content(b"x")),
        ):
            with pytest.raises(StoreError, match="Permission denied") as caught:
                act()
            assert "may write to" in caught.value.mend
        backend.close()


def test_a_folder_in_whose_place_a_file_stands_is_told(server: SshServer, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file", encoding="utf-8")
    backend = opened(server, tmp_path / "store")
    with pytest.raises(StoreError, match="cannot be used"):
        backend.publish("runs/file", Content(b"x"))
    assert backend.size("runs/file") is None
    backend.close()


@pytest.mark.parametrize(("quota", "what"), [(False, "the store's disk is full$"), (True, "your quota there")])
def test_a_disk_that_takes_no_more_is_full(tmp_path: Path, quota: bool, what: str) -> None:
    with running_without_room(tmp_path / "server", quota) as server:
        backend = opened(server, tmp_path / "store")
        for act in (
            lambda: backend.put_if_absent("results/fold.json", b"x"),
            lambda: backend.publish("runs/file", Content(LARGE)),
        ):
            with pytest.raises(StoreFullError) as caught:
                act()
            assert re.search(what, caught.value.what)
        assert backend.leftovers() == [], "what was begun takes up no space"
        backend.close()


def test_a_server_without_openssh_s_extensions_serves_as_well(tmp_path: Path) -> None:
    lacking = "posix-rename,fsync,statvfs,limits"
    with running_sshd(tmp_path / "sshd", ["-P", lacking]) as server:
        backend = opened(server, tmp_path / "store")
        for data in (b"old", LARGE, b"new"):
            backend.publish("runs/file", Content(data))
            assert content(backend, "runs/file") == data
        backend.publish("runs/other", Content(b"moved"))
        backend.move("runs/other", "runs/file")
        assert content(backend, "runs/file") == b"moved"
        assert backend.put_if_absent("results/fold.json", b"first")
        assert not backend.put_if_absent("results/fold.json", b"second")
        assert [entry.key for entry in backend.list("")] == ["results/fold.json", "runs/file"]
        backend.close()


def test_of_writers_that_saw_nothing_one_takes_the_name(server: SshServer, tmp_path: Path) -> None:
    """Between looking and renaming, another one was quicker."""
    backend = opened(server, tmp_path / "store")

    class Overtaken(SftpBackend):
        def _write(self, link: Link, temporary: str, content: Content) -> None:
            super()._write(link, temporary, content)
            assert backend.put_if_absent("results/fold.json", b"quicker")

    slower = Overtaken(server.url(tmp_path / "store"), server.config)
    assert not slower.put_if_absent("results/fold.json", b"slower")
    assert content(backend, "results/fold.json") == b"quicker"
    assert backend.leftovers() == []
    slower.close()
    backend.close()


def test_large_content_never_lies_whole_in_memory(server: SshServer, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from shared_store.backend import Content
from shared_store.sftp import SftpBackend

def peak_mb(act):
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    act()
    return peak() - before

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

backend = SftpBackend({server.url(tmp_path / "store")!r}, Path({str(server.config)!r}))
backend.size("blobs/large")
print(peak_mb(lambda: backend.publish("blobs/large", Content(Path({str(tmp_path / "large")!r})))))
print(peak_mb(lambda: sum(len(part) for part in backend.parts("blobs/large"))))
"""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(96 * 2**20)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert all(float(line) <= 64 for line in result.stdout.split()), result.stdout


def test_without_asyncssh_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["asyncssh"] = None
from shared_store.store import open_store
open_store("sftp://host/data")
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert "asyncssh is not installed" in result.stderr
    assert "pip install 'foldfleet[sftp]'" in result.stderr
