"""`cluster.yaml`: the machines of a fleet as Ray's launcher reads them, checked before anything is started."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared_store.errors import UserError

_FOR_EXAMPLES = ip_network("192.0.2.0/24")  # RFC 5737: no machine has such an address


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)  # the rest is Ray's, and Ray checks it


class _Provider(_Part):
    type: Literal["local"]
    head_ip: str
    worker_ips: tuple[str, ...] = ()


class _Auth(_Part):
    ssh_user: str
    ssh_private_key: str


class FleetFile(_Part):
    """What foldfleet itself needs of the file: who the machines are, and how they are reached."""

    cluster_name: str
    provider: _Provider
    auth: _Auth
    min_workers: int = 0
    max_workers: int = 0
    file_mounts: dict[str, str] = Field(default_factory=dict)

    @property
    def machines(self) -> tuple[str, ...]:
        """Addresses, the head's first."""
        return (self.provider.head_ip, *self.provider.worker_ips)

    @property
    def key(self) -> Path:
        """The SSH key's file."""
        return Path(self.auth.ssh_private_key).expanduser()


def read_fleet_file(path: Path) -> FleetFile:
    """The fleet that `path` describes. UserError for what is wrong in it, with the line's name."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        fleet = FleetFile.model_validate(given)
    except FileNotFoundError as error:
        raise UserError("there is no such file", where=str(path), mend="name your cluster.yaml") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"it cannot be read: {error}", where=str(path), mend="compare it with cluster.yaml") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}"
        raise UserError(str(first["msg"]), where=where, mend="compare it with the project's cluster.yaml") from error
    _check(fleet, path)
    return fleet


def _check(fleet: FleetFile, path: Path) -> None:
    workers = fleet.provider.worker_ips
    for address in fleet.machines:
        _check_address(address, f"{path}: provider")
    twice = [address for address, count in Counter(fleet.machines).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} stands there twice", where=f"{path}: provider", mend="name each machine once")
    if not fleet.min_workers == fleet.max_workers == len(workers):
        what = f"{len(workers)} worker_ips, min_workers {fleet.min_workers}, max_workers {fleet.max_workers}"
        raise UserError(what, where=str(path), mend=f"set both to {len(workers)}: Ray starts no others")
    if not fleet.key.is_file():
        mend = f"ssh-keygen -t ed25519 -f {fleet.auth.ssh_private_key}; then ssh-copy-id -i it to every machine"
        raise UserError(
            "there is no such key", where=f"{path}: ssh_private_key {fleet.auth.ssh_private_key}", mend=mend
        )
    for target, source in fleet.file_mounts.items():
        if not source.startswith("~") and not Path(source).exists():  # the token may not be made yet
            where = f"{path}: file_mounts {target}"
            raise UserError(f"there is no {source} here", where=where, mend="run this in the project's folder")


def _check_address(address: str, where: str) -> None:
    try:
        is_example = ip_address(address) in _FOR_EXAMPLES
    except ValueError:
        mend = "write its IP address: the fleet knows machines by it"
        raise UserError(f"{address} is a name", where=where, mend=mend) from None
    if is_example:
        raise UserError(f"{address} is an example", where=where, mend="write the addresses of your own machines there")
