"""Who may use a fleet's Ray: one token that every machine has, and the variables that all of its processes need."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from shared_store.errors import UserError

TOKEN = ".ray/auth_token"  # below the home folder, where Ray looks for it
TEMPORARY = ".foldfleet/tmp"  # temporary files of a machine's Ray and of its folds, removed by `foldfleet down`
_BYTES = 32
EMBEDDED_ENVIRONMENT: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",  # idle workers that nobody asked for cost seconds and 80 MB each
    "RAY_prestart_worker_first_driver": "0",
    # Parts of files that went through the head's store are let go of at once, not a hundred of them at a time.
    "RAY_free_objects_batch_size": "2",
    "RAY_free_objects_period_milliseconds": "100",
}
_FLEET_ENVIRONMENT: Mapping[str, str] = {
    "RAY_AUTH_MODE": "token",
    # A machine that lost its power is noticed in about 10 seconds instead of 7 minutes.
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    # As long machines and their folds wait for a head that keeps its books in Redis; Ray itself waits a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "900",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # Ray calls several machines there experimental, and asks for this
    "OMP_NUM_THREADS": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


def ray_environment() -> dict[str, str]:
    """What every Ray process of a fleet needs: `ray start` on each machine, drivers, Ray's own commands."""
    return {**EMBEDDED_ENVIRONMENT, **_FLEET_ENVIRONMENT}


def ensure_token(home: Path) -> Path:
    """The fleet's token below `home`: made if there is none, and readable by its owner alone, whoever wrote it."""
    path = home / TOKEN
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _has_text(path):
        path.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):  # another command was faster
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_BYTES))
    path.chmod(0o600)  # `ray.init` writes it for all to read
    return path


def enter_fleet(environment: dict[str, str] | os._Environ[str], home: Path) -> None:
    """Make `environment` that of a process of a fleet. UserError where it must not or cannot use the token."""
    mode = environment.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        mend = "unset RAY_AUTH_MODE; without a token, whoever reaches a fleet's ports runs code on every machine"
        raise UserError(f"RAY_AUTH_MODE is {mode}", where="the environment", mend=mend)
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or home / TOKEN)
    if not environment.get("RAY_AUTH_TOKEN") and not _has_text(path):
        mend = "`foldfleet up` makes and ships it; else copy that file from the head: scp HEAD:.ray/auth_token ~/.ray/"
        raise UserError("this machine does not have the fleet's token", where=str(path), mend=mend)
    for name, value in ray_environment().items():
        environment.setdefault(name, value)


def environment_to_join(home: Path, begins: bool) -> dict[str, str]:
    """That of a machine's Ray in a fleet; `begins`: it is the head, whose token is made if there is none. UserError."""
    environment = dict(os.environ)
    if begins:
        ensure_token(home)
    enter_fleet(environment, home)
    keep_temporary_files(environment, home)
    if (home / TOKEN).is_file():
        ensure_token(home)  # for its owner's eyes alone, whoever copied it here
    return environment


def keep_temporary_files(environment: dict[str, str], home: Path) -> None:
    """Have a Ray that is begun here, and all that it begins, leave in one place what they leave when killed."""
    if sys.platform != "win32":
        (home / TEMPORARY).mkdir(parents=True, exist_ok=True)
        environment.setdefault("RAY_TMPDIR", environment.get("TMPDIR", "/tmp"))  # Ray's sockets have short names there
        environment["TMPDIR"] = str(home / TEMPORARY)


def _has_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (FileNotFoundError, NotADirectoryError):
        return False
