"""Look after a store: read every byte of it, see what it holds, remove what nobody needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Annotated

import tyro
from rich.console import Console

from coordinator.committing import find_committer
from coordinator.generation import Watch, cleaning
from coordinator.store_view import show_checked, show_contents, show_needless, total
from coordinator.view import shown
from jobs.console import command, done, terminal
from shared_store.care import check
from shared_store.errors import RunFailedError, StoppedError, UserError
from shared_store.store import Store, open_store
from shared_store.sweep import remove

Url = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="URL", help="What --store takes.")]


@dataclass(frozen=True)
class Check:
    """Read every byte: blobs against their hashes, records against their keys and one another. Exit code 1 if wrong."""

    url: Url
    quarantine: bool = False
    """Put damaged blobs aside (damaged/ in the store), so that the right bytes can be kept again."""

    def act(self, store: Store, console: Console) -> None:
        with shown(console, "reading", in_bytes=True) as progress:
            checked = check(store, progress, quarantine=self.quarantine)
        show_checked(console, checked)
        if checked.wrong:
            aside = any("damaged" in one.what for one in checked.wrong) and not self.quarantine
            step = f"foldfleet store check {quote(self.url)} --quarantine" if aside else "mend what is named above"
            raise RunFailedError(f"{len(checked.wrong)} things are wrong\nnext: {step}")
        done("every byte is right", f"foldfleet store gc {quote(self.url)}")


@dataclass(frozen=True)
class Ls:
    """What is there: kinds, runs and tasks; or every key below PREFIX."""

    url: Url
    prefix: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[PREFIX]")] = ""
    """Such as runs/demo/ or blobs/."""

    def act(self, store: Store, console: Console) -> None:
        done(total(show_contents(console, store, self.prefix)), f"foldfleet store check {quote(self.url)}")


@dataclass(frozen=True)
class Gc:
    """Show what nobody needs, or remove it: what no record names and is old, while nobody drives a run in the store."""

    url: Url
    delete: bool = False
    """Remove what is shown; without it nothing changes."""
    grace_hours: Annotated[float, tyro.conf.arg(metavar="HOURS")] = 24.0
    """Leave alone what is younger than this by the store's own clock."""

    def act(self, store: Store, console: Console) -> None:
        if self.delete:
            self._remove(store, console)
            return
        needless = show_needless(console, store, self.grace_hours)
        step = f"foldfleet store gc {quote(self.url)} --delete --grace-hours {self.grace_hours:g}"
        done(f"{total(needless.goes)} would go; nothing is changed", step if needless.goes else "")

    def _remove(self, store: Store, console: Console) -> None:
        find_committer(store, print)
        with cleaning(store, Watch(print)) as hold:
            needless = show_needless(console, store, self.grace_hours)
            with shown(console, "removing") as progress:
                gone = remove(store, needless.goes, lambda: hold.successor is None, progress)
        if hold.successor is not None:
            raise StoppedError(f"Taken over by {hold.successor}: only what nobody needs is gone.")
        done(f"removed {total(needless.goes[:gone])}", f"foldfleet store check {quote(self.url)}")


def main(arguments: Sequence[str]) -> int:
    return command("store", _look_after, arguments)


def _look_after(arguments: Sequence[str]) -> None:
    kinds = tyro.conf.FlagCreatePairsOff[Check | Ls | Gc]
    given: Check | Ls | Gc = tyro.cli(kinds, prog="foldfleet store", description=__doc__, args=list(arguments))
    if not (store := open_store(given.url, tell=print)).list(""):
        raise UserError("there is nothing in this store", where=store.url, mend="give --store's URL; head:// there")
    given.act(store, terminal())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
