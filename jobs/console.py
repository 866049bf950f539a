"""What every command shares with the person at the terminal: arguments, errors, endings, exit codes.

Exit codes: 0 all is well, 1 a run failed, 2 something the person can mend, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from shared_store.errors import RunFailedError, StoppedError, UserError


def command(name: str, act: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Run one command's `act` and turn its ending into words and an exit code."""
    debug = "--debug" in arguments
    # Here and in all processes that it begins: torch makes that folder when it is loaded, else in /tmp.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path("~/.cache/foldfleet/torch").expanduser()))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a class's name that the terminal cannot write ends no run
            stream.reconfigure(errors="replace")
    try:
        act([argument for argument in arguments if argument != "--debug"])
    except (UserError, RunFailedError) as error:
        if debug:
            traceback.print_exc()
            print(getattr(error, "details", ""), file=sys.stderr)
        print(f"foldfleet {name}: {error}", file=sys.stderr)
        return error.exit_code
    except (StoppedError, KeyboardInterrupt) as error:
        how = str(error) or "The same command goes on from there."
        print(f"foldfleet {name}: stopped. {how}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read the output has left, as `head` does; nobody is there for a last flush either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def done(what: str, next_step: str = "") -> None:
    """The last words of a command: what it did and what to do next."""
    print(what)
    if next_step:
        print(f"next: {next_step}")


def terminal() -> Console:
    """The console of a command: 100 columns when piped, so that tables do not depend on who reads them."""
    return Console(width=None if sys.stdout.isatty() else 100)
