"""Who commits to a store: whoever comes first, where its disk can tell who that was; else one process alone."""

from __future__ import annotations

from collections.abc import Callable

from shared_store.committer import Committed, Committer
from shared_store.probe import NotExclusive, probe
from shared_store.store import Store, open_store


def find_committer(store: Store, say: Callable[[str], object]) -> None:
    """Find out by a race of several writers, before the first commit. Where more than one can win, `store` is switched:
    this process commits alone from now on, and the person is told.

    While a fleet works for us, its one committer takes over (`open_store(..., single_committer=True)`).
    """
    found = probe(lambda: open_store(store.url))
    if isinstance(found, NotExclusive):
        say(f"{store.url}: {found.reason}. So this computer alone commits, for the whole fleet:")
        say("drive no other run in this store from another computer at the same time")
        inner = store.backend
        store.backend = Committed(inner, Committer(lambda: inner).put_if_absent)


def commits_alone(store: Store) -> bool:
    """Whether `find_committer` switched `store`."""
    return isinstance(store.backend, Committed)
