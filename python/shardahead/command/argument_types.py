"""Numbers as options of the command take them: each gives what argparse calls with the text, and
says the range where it is refused. Pure; any thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from shardahead.arguments import parse_count
from shardahead.units import format_bytes, parse_bytes


def count_argument(least: int, most: int) -> Callable[[str], int]:
    """A whole number of that range."""

    def parse(text: str) -> int:
        try:
            count = parse_count(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error} ({least} to {most})") from None
        if not least <= count <= most:
            raise argparse.ArgumentTypeError(f"must be between {least} and {most}, not {count}")
        return count

    return parse


def bytes_argument(least: int, most: int) -> Callable[[str], int]:
    """A number of bytes of that range, with or without a unit."""

    def parse(text: str) -> int:
        try:
            count = parse_bytes(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if not least <= count <= most:
            between = f"{format_bytes(least)} and {format_bytes(most)}"
            raise argparse.ArgumentTypeError(f"must be between {between}, not {text}")
        return count

    return parse
