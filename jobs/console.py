"""What every command shares with the person at the terminal: help, errors, endings, exit codes.

Exit codes: 0 all is well, 1 a run failed, 2 something the person can mend, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from shared_store.errors import RunFailedError, StoppedError, UserError


def run_command(
    name: str, story: str | None, act: Callable[[list[str]], None], arguments: list[str], usage: str
) -> int:
    """Run one command's `act` and turn its ending into words and an exit code."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if "-h" in arguments or "--help" in arguments:
        print(f"usage: {usage}\n\n{(story or '').strip()}")
        return 0
    try:
        act(arguments)
    except (UserError, RunFailedError) as error:
        _explain(debug)
        _say(f"foldfleet {name}: {error}")
        return error.exit_code
    except (StoppedError, KeyboardInterrupt) as error:
        _say(f"foldfleet {name}: stopped. {error}".rstrip())
        return 130
    return 0


def done(what: str, next_step: str = "") -> None:
    """The last words of a command: what it did and what to do next."""
    print(what)
    if next_step:
        print(f"next: {next_step}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _explain(debug: bool) -> None:
    if debug:
        traceback.print_exc()
