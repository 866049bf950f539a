"""Every key in the store, built from ids. Pure: standard library only.

Truth is read by exact key, never by listing:

    blobs/<sha256>                 bytes, named by their hash
    incoming/<random>              bytes whose hash is not known yet; leftovers of kills are swept by gc
    damaged/<sha256>               what stood there and did not match
    commits/<task>/<n>.json        n = 1, 2, 3 ...; one winner each (put if absent)
    results/<task>.json            one per task (put if absent)
    snapshots/<id>.json            a frozen data set (put if absent)
    coordinators/<run>/<n>.json    who drives a run, n = 1, 2, 3 ... (put if absent); the newest does
    coordinators/<run>/<n>.beat    that it still lives, overwritten every few seconds
    cleaners/<n>.json, <n>.beat    the same of who removes what nobody needs: nobody drives meanwhile
    probes/<random>                what is written to find out how the store behaves, and removed
    logs/<task>/<file>             metrics.csv, train.log: for people, overwritten
    runs/<run>/...                 what one run leaves for people, overwritten
"""

from __future__ import annotations

import re

from shared_store.errors import UserError

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
COMMITS = "commits/"
COORDINATORS, CLEANERS = "coordinators", "cleaners"
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def checked_key(key: str) -> str:
    """Return `key` when every part is allow-listed (no `..`, drive letters, reserved names)."""
    for part in key.split("/"):
        if not _PART.fullmatch(part) or _RESERVED.fullmatch(part) or part[-1] in ". ":
            raise UserError(
                f"not a key that every disk can hold: {key!r}",
                where=f"the part {part!r}",
                mend="use letters, digits, '_', '-' and '.', and start with a letter or digit",
            )
    return key


def slug(name: str) -> str:
    """`teacher/fold0` -> `teacher-fold0`: a task's name as one part of a key."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")


def blob(digest: str) -> str:
    assert _DIGEST.fullmatch(digest), f"not a sha256: {digest!r}"
    return f"blobs/{digest}"


def incoming(name: str) -> str:
    return checked_key(f"incoming/{name}")


def damaged(digest: str) -> str:
    """Where the bytes of a blob that turned out damaged are put aside."""
    return f"damaged/{digest}"


def commit(task: str, number: int) -> str:
    assert number >= 1, f"commits count from 1, not {number}"
    return checked_key(f"{COMMITS}{task}/{number}.json")


def commits(task: str) -> str:
    """Below it stand the commits of `task`."""
    return checked_key(f"{COMMITS}{task}") + "/"


def result(task: str) -> str:
    return checked_key(f"results/{task}.json")


def snapshot(snapshot_id: str) -> str:
    return checked_key(f"snapshots/{snapshot_id}.json")


def coordinators(run: str) -> str:
    """Below it stand the generations of those who drive a run."""
    return checked_key(f"{COORDINATORS}/{run}")


def generation(holders: str, number: int) -> str:
    """Who was the `number`th to hold what `holders` (`coordinators(run)` or CLEANERS) is about."""
    assert number >= 1, f"generations count from 1, not {number}"
    return f"{holders}/{number}.json"


def beat(holders: str, number: int) -> str:
    """Where the `number`th holder shows that it lives."""
    return f"{holders}/{number}.beat"


def probe(name: str) -> str:
    return checked_key(f"probes/{name}")


def log(task: str, file: str) -> str:
    return checked_key(f"logs/{task}/{file}")


def run_file(run: str, file: str) -> str:
    return checked_key(f"runs/{run}/{file}")
