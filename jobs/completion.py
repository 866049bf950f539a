"""What a shell needs to complete `foldfleet` commands and their options: made once, of what their --help says.

bash:  foldfleet completion bash > ~/.local/share/bash-completion/completions/foldfleet
zsh:   foldfleet completion zsh > ~/.foldfleet-completion, and in ~/.zshrc: source ~/.foldfleet-completion
fish:  foldfleet completion fish > ~/.config/fish/completions/foldfleet.fish
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence

from jobs.console import command
from shared_store.errors import UserError

_OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")
_KINDS = {"store": ("check", "ls", "gc"), "completion": ("bash", "zsh", "fish")}


def main(arguments: Sequence[str]) -> int:
    return command("completion", _complete, arguments)


def _complete(arguments: Sequence[str]) -> None:
    from jobs.cli import COMMANDS

    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: foldfleet completion bash|zsh|fish\n\n{(__doc__ or '').strip()}")
        return
    if len(arguments) != 1 or arguments[0] not in _KINDS["completion"]:
        mend = "foldfleet completion bash, zsh or fish; --help says where to put it"
        raise UserError("one shell is needed", where="foldfleet completion", mend=mend)
    options = {name: options_of(name) for name in COMMANDS if name != "completion"}
    if arguments[0] == "fish":
        print(_fish(COMMANDS, options))
        return
    print("autoload -U bashcompinit && bashcompinit" if arguments[0] == "zsh" else "# bash completion of foldfleet")
    print(_bash(COMMANDS, options))


def options_of(name: str) -> tuple[str, ...]:
    """Every option that a command's own help names, in its order."""
    os.environ["COLUMNS"] = "200"  # no option is broken at a line's end
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        for kind in _KINDS.get(name, ("",)):
            with contextlib.suppress(SystemExit):  # so the parser ends its help
                importlib.import_module(f"jobs.{name}").main([*([kind] if kind else []), "--help"])
    return tuple(dict.fromkeys([*_named(text.getvalue()), "--debug", "--help"]))


def _named(text: str) -> list[str]:
    """The options in a help text, but for examples such as --recipes.NAME.KEY."""
    return [word for word in _OPTION.findall(text) if word == word.lower()]


def _alike(options: Mapping[str, Sequence[str]]) -> dict[Sequence[str], list[str]]:
    """Commands by their options: most have the same."""
    found: dict[Sequence[str], list[str]] = {}
    for name, words in options.items():
        found.setdefault(words, []).append(name)
    return found


def _bash(commands: Mapping[str, str], options: Mapping[str, Sequence[str]]) -> str:
    cases = [f"    {'|'.join(names)}) words='{' '.join(words)}' ;;" for words, names in _alike(options).items()]
    kinds = [f"    {name}) words='{' '.join(words)}' ;;" for name, words in _KINDS.items()]
    lines = [
        "_foldfleet() {",
        '  local word="${COMP_WORDS[COMP_CWORD]}" words=""',
        "  COMPREPLY=()",
        '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f"    words='{' '.join(commands)}'",
        '  elif [[ "$word" == -* ]]; then',
        '    case "${COMP_WORDS[1]}" in',
        *cases,
        "    esac",
        '  elif [ "$COMP_CWORD" -eq 2 ]; then',
        '    case "${COMP_WORDS[1]}" in',
        *kinds,
        "    esac",
        "  fi",
        '  if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$word")); fi',
        "}",
        "complete -o default -F _foldfleet foldfleet",
    ]
    return "\n".join(lines)


def _fish(commands: Mapping[str, str], options: Mapping[str, Sequence[str]]) -> str:
    says = [(name, what.replace("'", "\\'")) for name, what in commands.items()]
    lines = [f"complete -c foldfleet -n __fish_use_subcommand -f -a {name} -d '{what}'" for name, what in says]
    for words, names in _alike(options).items():
        seen = f"'__fish_seen_subcommand_from {' '.join(names)}'"
        lines += [f"complete -c foldfleet -n {seen} -l {word.removeprefix('--')}" for word in words]
    for name, words in _KINDS.items():
        lines.append(f"complete -c foldfleet -n '__fish_seen_subcommand_from {name}' -f -a '{' '.join(words)}'")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
