"""How work ends badly in words a person can use. Standard library only, below every room."""

from __future__ import annotations


class UserError(Exception):
    """Something the person can mend: what is wrong, where, and how to mend it.

    Commands print the three parts and exit with `exit_code`, without a traceback.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str, mend: str) -> None:
        super().__init__(what, where, mend)
        self.what = what
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  mend:  {self.mend}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default exception pickling across processes.
        return (_rebuild, (type(self), self.what, self.where, self.mend))


def _rebuild(kind: type[UserError], what: str, where: str, mend: str) -> UserError:
    return kind(what, where=where, mend=mend)


class StoreError(UserError):
    """The store could not do what was asked (not writable, full, gone)."""


class StoreDownError(StoreError):
    """The store does not answer now; the same call may work in a moment."""


class StoreRefusedError(StoreError):
    """The store did not accept who we are: credentials read anew may help once."""


class StoreFullError(StoreError):
    """There is no space left for more."""


class NotExclusiveError(StoreError):
    """The store cannot let one of several writers win: only one process may commit there."""


class MissingBlobError(StoreError):
    """No bytes stand under the hash that names a blob."""


class DamagedBlobError(StoreError):
    """A blob's bytes do not match the hash that names it."""


class DamagedRecordError(StoreError):
    """A record's bytes are not those that were put."""


class RunFailedError(Exception):
    """Work was done but not all of it succeeded; the text says what failed and what to do.

    `exit_code` is 2 when everything that failed is the person's to mend, 1 otherwise. `details`: for --debug.
    """

    def __init__(self, text: str, exit_code: int = 1, details: str = "") -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.details = details


class StoppedError(Exception):
    """The person asked to stop; what was running is committed. The text says how to go on."""
