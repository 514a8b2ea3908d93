"""The parser of the command: argparse's, which says in two lines what is wrong with the words that
were typed, and what was meant. One thread.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from shardahead.command.results import WRONG_USAGE
from shardahead.command.standard_streams import show


class Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        """Not as argparse does, which is silent where standard output takes nothing, and in Python
        3.10 is not where standard error does.
        """
        if message and file is sys.stdout:
            show(message.rstrip("\n"))
            return
        with suppress(OSError):
            super()._print_message(message, file)

    def parse_known_args(self, *args: Any, **named: Any) -> Any:
        """What a command does not know it says itself: it knows what is near."""
        options, unknown = super().parse_known_args(*args, **named)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Without the usage, which argparse prints before it: of `warm` that has eleven lines."""
        said = f"{self.prog}: error: {message}{_meant(message, self.format_help())}"
        self.exit(WRONG_USAGE, f"{said}\nTry '{self.prog} --help'.\n")


def _meant(message: str, page: str) -> str:
    """What of the page is near a word that it does not have."""
    if "arguments are required: COMMAND" in message:
        return f" ({', '.join(_commands_in(page))})"
    if option := re.match("unrecognized arguments: (--[^ =]+)", message):
        return _near(option[1], sorted(set(re.findall("--[a-z][a-z-]*", page))))
    if command := re.match("argument COMMAND: invalid choice: '(.*?)'", message):
        return _instead_of(command[1], _commands_in(page))
    return ""


def _instead_of(word: str, commands: Sequence[str]) -> str:
    """What to type in place of a word that is no command."""
    if near := _near(word, commands):
        return near
    if word in ("help", "version"):
        return f"; did you mean --{word}?"
    if "/" in word or os.path.lexists(word):
        return "; a COMMAND goes before the PATH, warm say"
    return ""


def _commands_in(page: str) -> Sequence[str]:
    return re.findall(r"(?m)^    ([a-z]+)(?:  |$)", page)


def _near(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
