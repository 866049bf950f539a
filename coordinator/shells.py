"""The scripts by which shells complete commands and their options. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Options = Mapping[str, Sequence[str]]


def _alike(options: Options) -> dict[Sequence[str], list[str]]:
    """Commands by their options: most have the same."""
    found: dict[Sequence[str], list[str]] = {}
    for name, words in options.items():
        found.setdefault(words, []).append(name)
    return found


def bash_script(commands: Mapping[str, str], options: Options, kinds: Options) -> str:
    """For bash, and for zsh after `bashcompinit`. `kinds`: what some commands want as their first word."""
    cases = [f"    {'|'.join(names)}) words='{' '.join(words)}' ;;" for words, names in _alike(options).items()]
    second = [f"    {name}) words='{' '.join(words)}' ;;" for name, words in kinds.items()]
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
        *second,
        "    esac",
        "  fi",
        '  if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$word")); fi',
        "}",
        "complete -o default -F _foldfleet foldfleet",
    ]
    return "\n".join(lines)


def fish_script(commands: Mapping[str, str], options: Options, kinds: Options) -> str:
    """The same for fish, with what each command does. `commands`: their words for people, by name."""
    says = [(name, what.replace("'", "\\'")) for name, what in commands.items()]
    lines = [f"complete -c foldfleet -n __fish_use_subcommand -f -a {name} -d '{what}'" for name, what in says]
    for words, names in _alike(options).items():
        seen = f"'__fish_seen_subcommand_from {' '.join(names)}'"
        lines += [f"complete -c foldfleet -n {seen} -l {word.removeprefix('--')}" for word in words]
    for name, words in kinds.items():
        lines.append(f"complete -c foldfleet -n '__fish_seen_subcommand_from {name}' -f -a '{' '.join(words)}'")
    return "\n".join(lines)
