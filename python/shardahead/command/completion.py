"""Completion of what is typed: the script for a shell, and what the command answers that script.

By argcomplete, which asks the parser itself, in bash, zsh and fish: shtab, whose scripts ask
nobody, knows no fish and no repository of the cache. The shell's script starts the command anew,
and that process ends here with the answer. For the main thread.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from shardahead.command.hub_cache import cache_folder, cached_repositories
from shardahead.command.showing_options import EXIT_STATUSES_OF_COMPLETION
from shardahead.command.standard_streams import show

_SHELLS = ("bash", "zsh", "fish")
_EXAMPLES = """\
bash  eval "$(shardahead completion bash)" in ~/.bashrc, or
      shardahead completion bash > ~/.local/share/bash-completion/completions/shardahead
zsh   eval "$(shardahead completion zsh)" in ~/.zshrc, after compinit
fish  shardahead completion fish > ~/.config/fish/completions/shardahead.fish"""
# Without bash's own completion of files, which stands in for each answer that is empty: of a number
# say. But words with a variable bash alone can complete.
_OF_BASH = """
_shardahead() {
    if [[ "${COMP_WORDS[COMP_CWORD]}" == *'$'* ]]; then
        compopt -o default -o bashdefault
    else
        _python_argcomplete "$@"
    fi
}
complete -o nospace -F _shardahead shardahead
"""
_PATHS = ("FILE", "FOLDER", "PATH")
_MISSING = "completion needs argcomplete ({}); install with: pip install argcomplete"


def add_completion_parser(subparsers: Any) -> None:
    does = "print the script by which a shell completes what is typed"
    parser = subparsers.add_parser(
        "completion",
        help=does,
        description=f"completion: {does}.",
        epilog=f"{_EXAMPLES}\n\n{EXIT_STATUSES_OF_COMPLETION}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(run=completion, command="completion", json=False)


def completion(options: argparse.Namespace) -> int:
    """Prints the script. Raises ValueError where argcomplete is missing."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise ValueError(_MISSING.format(error)) from error
    script = shellcode(["shardahead"], use_defaults=False, shell=options.shell)
    show((script + (_OF_BASH if options.shell == "bash" else "")).rstrip("\n"))
    return 0


def answer_shell(parser: argparse.ArgumentParser) -> None:
    """Where the script of a shell asks, answers it and ends the process; else does nothing."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        os._exit(1)
    answer: Any = argcomplete.autocomplete  # typed for subclasses of its own completers
    answer(parser, default_completer=values_of)


def values_of(prefix: str, action: argparse.Action, **_: Any) -> list[str]:
    """Files and folders where an option takes one; of a number or a name there is none to offer."""
    return names_of_files(prefix) if action.metavar in _PATHS else []


def in_list(values: Sequence[str]) -> Callable[..., list[str]]:
    """Completes the last of several, separated by commas."""

    def complete(prefix: str, **_: Any) -> list[str]:
        before, comma = prefix.rpartition(",")[:2]
        return [f"{before}{comma}{value}" for value in values if value not in before.split(",")]

    return complete


def names_of_files(prefix: str, **_: Any) -> list[str]:
    """Files and folders whose path begins so."""
    folder, name = os.path.split(prefix)
    found = []
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            for entry in entries:
                if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
                    end = ""
                    with suppress(OSError):  # a link that leads to itself is a name all the same
                        end = "/" if entry.is_dir() else ""
                    found.append(os.path.join(folder, entry.name) + end)
    except OSError:
        return []
    return sorted(found)


def names_of_checkpoints(prefix: str, **_: Any) -> list[str]:
    """What a PATH may be: files and folders, and repositories of the local Hugging Face cache."""
    cached = cached_repositories(cache_folder(os.environ))
    return [
        *names_of_files(prefix),
        *(name for name in cached if prefix and name.startswith(prefix)),
    ]
