"""What a login over SSH needs: an address, the user's settings, known hosts and keys; the words for when it fails."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncssh

from shared_store.errors import StoreDownError, StoreError, StoreRefusedError

# In hardware on every machine of the last ten years, and one pass for both secrecy and integrity.
_FAST_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
# After the kinds of key that are known of a host, so that one which is not is shown instead of a hang-up.
_HOST_KEYS = "+ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256"
_ASK = "then give the same command again"


@dataclass(frozen=True)
class Address:
    """`sftp://[user@]host[:port]/path`: what is left out is as SSH's settings say.

    The path is absolute; below the user's home folder there it is `/~/path`. Characters may be escaped (`%20`).
    """

    url: str
    host: str
    port: int | None
    user: str | None
    path: str

    @classmethod
    def of(cls, url: str) -> Address:
        """The parts of a URL, checked. StoreError where it is not one."""
        try:
            split = urlsplit(url)
            host, port = split.hostname, split.port
        except ValueError as error:
            raise _bad_address(url, str(error)) from error
        if split.password is not None:
            hidden = url.replace(f":{split.password}@", "@")
            raise _bad_address(hidden, "it has a password in it; keys are what this needs (ssh-copy-id installs one)")
        if not host or not split.path:
            raise _bad_address(url, "it does not name both a host and a folder there")
        if split.query or split.fragment:
            raise _bad_address(url, "'?' and '#' are written %3F and %23")
        path = unquote(split.path)
        path = (path[3:] or ".") if f"{path}/".startswith("/~/") else path
        return cls(url, host, port, unquote(split.username) if split.username else None, path.rstrip("/") or "/")


class _Client(asyncssh.SSHClient):
    """Notes the host key that nobody vouched for; it is refused."""

    presented: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.presented = key
        return False


@dataclass
class Login:
    """All that a connection needs, and what is noticed while it opens."""

    address: Address
    config: Path | None
    known_hosts: list[Path] = field(default_factory=list)
    options: asyncssh.SSHClientConnectionOptions = field(init=False)
    client: _Client = field(default_factory=_Client)
    knows_other_keys: bool = False

    @property
    def port(self) -> Any:
        """The address's port, or () for what the settings say: asyncssh's word for it."""
        return self.address.port or ()

    @property
    def files(self) -> Any:
        """The settings in asyncssh's words; jump hosts are reached by them too."""
        return [str(self.config)] if self.config else ()

    @property
    def shown_host(self) -> str:
        """The host as known_hosts files name it."""
        name = self.options.host_key_alias or self.options.host
        return name if self.options.port == 22 else f"[{name}]:{self.options.port}"


def prepared(address: Address, config: Path | None) -> Login:
    """Read the SSH settings for an address, now. StoreError where they cannot be read or understood."""
    login = Login(address, config)
    try:
        _read(login)
    except (OSError, ValueError, asyncssh.Error) as error:
        where = f"{address.url}, with {config or '~/.ssh/config'} and the files it names"
        raise StoreError(f"the SSH settings cannot be used: {error}", where=where, mend=f"mend them, {_ASK}") from error
    return login


def _read(login: Login) -> None:
    user: Any = login.address.user or ()
    given = {"host": login.address.host, "port": login.port, "username": user, "config": login.files}
    settings = asyncssh.SSHClientConnectionOptions(**given, client_keys=None).config
    keys = _names(settings.get("IdentityFile"))
    users = settings.get("UserKnownHostsFile", ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"])
    everybodys = settings.get("GlobalKnownHostsFile", ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"])
    login.known_hosts = [Path(name).expanduser() for name in [*_names(users), *_names(everybodys)]]
    hosts = asyncssh.read_known_hosts([str(file) for file in login.known_hosts if file.is_file()])

    def trusted(host: str, addr: str, port: int | None) -> Any:
        found = hosts.match(host, addr, port)
        login.knows_other_keys = bool(found[0] or found[1])
        return found

    login.options = asyncssh.SSHClientConnectionOptions(
        **given,
        # As ssh does: keys that are not there are passed over, those with a passphrase left to the agent.
        client_keys=[name for name in keys if Path(name).expanduser().is_file()] if keys else (),
        ignore_encrypted=True,
        password_auth=False,
        kbdint_auth=False,
        compression_algs=["none"],
        encryption_algs=() if settings.get("Ciphers") else _FAST_CIPHERS,
        server_host_key_algs=() if settings.get("HostKeyAlgorithms") else _HOST_KEYS,
        known_hosts=trusted,  # `none` in the settings trusts nobody, never everybody
        client_factory=lambda: login.client,
    )


def _names(value: object) -> list[str]:
    """A setting that names files."""
    return [str(name) for name in value] if isinstance(value, list | tuple) else []


def _bad_address(url: str, why: str) -> StoreError:
    mend = "write sftp://user@host/folder, or sftp://user@host/~/folder below the home folder there"
    return StoreError(f"not the address of an SFTP store: {why}", where=url, mend=mend)


@contextlib.contextmanager
def explained(login: Login) -> Iterator[None]:
    """Turn what went wrong while a connection was opened into one of the store's errors."""
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise _untrusted(login, error) from error
    except asyncssh.KeyExchangeFailed as error:
        if login.knows_other_keys and "host key" in str(error):
            raise _untrusted(login, error) from error
        mend = f"allow an algorithm that both sides know in the SSH settings, {_ASK}"
        raise StoreError(
            f"no common ground with the SSH server: {error}", where=login.address.url, mend=mend
        ) from error
    except asyncssh.PermissionDenied as error:
        raise _refused(login, "the SSH server did not accept any of your keys") from error
    except (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost) as error:
        raise _down(login, error) from error
    except (asyncssh.ChannelOpenError, asyncssh.SFTPError) as error:
        mend = f"allow it there (`Subsystem sftp internal-sftp` in sshd_config, or a higher MaxSessions), {_ASK}"
        raise StoreError(
            f"the SSH server opens no SFTP session ({error})", where=login.address.url, mend=mend
        ) from error
    except (asyncssh.Error, OSError) as error:
        if "authentication failures" in str(error):
            raise _refused(login, "the SSH server ended the login after too many wrong keys") from error
        raise _down(login, error) from error


def _down(login: Login, error: Exception) -> StoreDownError:
    what = f"the store cannot be reached ({str(error) or 'no answer'})"
    mend = f"check the address, the server and the network (`{_try(login)}` must work), {_ASK}"
    return StoreDownError(what, where=login.address.url, mend=mend)


def _refused(login: Login, what: str) -> StoreRefusedError:
    copy = f"ssh-copy-id {_port(login, '-p')}{shlex.quote(f'{login.options.username}@{login.options.host}')}"
    mend = (
        f"install your key there (`{copy}`), or choose it by `IdentityFile` and `IdentitiesOnly yes` in the SSH "
        f"settings; one with a passphrase goes to the agent (`ssh-add`). `{_try(login)}` must work without a question"
    )
    return StoreRefusedError(what, where=login.address.url, mend=mend)


def _untrusted(login: Login, error: Exception) -> StoreError:
    """The host key is not the one that is known, or none is known: both have a way out, after a check."""
    file = _shown(login.known_hosts[0]) if login.known_hosts else "~/.ssh/known_hosts"
    key = login.client.presented
    shown = f"{key.get_algorithm()} {key.get_fingerprint()}" if key else str(error)
    scan = f"ssh-keyscan -H {_port(login, '-p')}{shlex.quote(login.options.host)} >> {file}"
    if "revoked" in str(error):
        mend = "do not use it; ask who runs the server, and what `@revoked` in the known_hosts files is about"
        return StoreError(f"the SSH server's host key is revoked ({shown})", where=login.address.url, mend=mend)
    check = "compare that fingerprint with the server's (there: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`)"
    if not login.knows_other_keys:
        mend = f"{check}, add it by `{scan}`, {_ASK}"
        return StoreError(f"the SSH server's host key is not known ({shown})", where=login.address.url, mend=mend)
    forget = f"ssh-keygen -R {shlex.quote(login.shown_host)} -f {file}"
    mend = f"somebody may be listening in: {check}; only if it is right, `{forget}`, then `{scan}`, {_ASK}"
    return StoreError(f"the SSH server's host key has changed ({shown})", where=login.address.url, mend=mend)


def _port(login: Login, flag: str) -> str:
    return "" if login.options.port == 22 else f"{flag} {login.options.port} "


def _try(login: Login) -> str:
    """The command that shows whether SSH alone works."""
    settings = f"-F {shlex.quote(str(login.config))} " if login.config else ""
    return f"sftp {settings}{_port(login, '-P')}{shlex.quote(f'{login.options.username}@{login.address.host}')}"


def _shown(file: Path) -> str:
    home = Path.home()
    return f"~/{file.relative_to(home).as_posix()}" if file.is_relative_to(home) else shlex.quote(str(file))
