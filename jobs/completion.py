"""What a shell needs to complete `foldfleet` commands and their options: made once, of what their --help says.

bash:  mkdir -p ~/.local/share/bash-completion/completions
       foldfleet completion bash > ~/.local/share/bash-completion/completions/foldfleet
zsh:   foldfleet completion zsh > ~/.foldfleet-completion, and in ~/.zshrc: source ~/.foldfleet-completion
fish:  mkdir -p ~/.config/fish/completions
       foldfleet completion fish > ~/.config/fish/completions/foldfleet.fish
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence

from coordinator.shells import bash_script, fish_script
from jobs.console import command
from shared_store.errors import UserError

_OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")
KINDS = {"store": ("check", "ls", "gc"), "completion": ("bash", "zsh", "fish")}


def main(arguments: Sequence[str]) -> int:
    return command("completion", _complete, arguments)


def _complete(arguments: Sequence[str]) -> None:
    from jobs.cli import COMMANDS

    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: foldfleet completion bash|zsh|fish\n\n{(__doc__ or '').strip()}")
        return
    if len(arguments) != 1 or arguments[0] not in KINDS["completion"]:
        mend = "foldfleet completion bash, zsh or fish; --help says where to put it"
        raise UserError("one shell is needed", where="foldfleet completion", mend=mend)
    options = {name: options_of(name) for name in COMMANDS if name != "completion"}
    if arguments[0] == "fish":
        print(fish_script(COMMANDS, options, KINDS))
        return
    print("autoload -U bashcompinit && bashcompinit" if arguments[0] == "zsh" else "# bash completion of foldfleet")
    print(bash_script(COMMANDS, options, KINDS))


def options_of(name: str) -> tuple[str, ...]:
    """Every option that a command's own help names, in its order."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), _wide():
        for kind in KINDS.get(name, ("",)):
            with contextlib.suppress(SystemExit):  # so the parser ends its help
                importlib.import_module(f"jobs.{name}").main([*([kind] if kind else []), "--help"])
    return tuple(dict.fromkeys([*_named(text.getvalue()), "--debug", "--help"]))


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """So that no option is broken at a line's end."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "200"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {} if before is None else {"COLUMNS": before}


def _named(text: str) -> list[str]:
    """The options in a help text, but for examples such as --recipes.NAME.KEY."""
    return [word for word in _OPTION.findall(text) if word == word.lower()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
