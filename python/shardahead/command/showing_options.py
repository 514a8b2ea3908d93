"""The options of how a command shows what it found, and what `--help` says of its end. Pure: they
are parsed here, and meant elsewhere.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence

from shardahead.command.readiness import Required, parse_share
from shardahead.command.tables import MOST_SHARDS
from shardahead.command.watch import DEFAULT_SECONDS

_STATUSES = """\
Exit status:
  0    done
  1    incomplete, with the reason on standard error: {}
  2    wrong usage{}
  130  ended by Ctrl-C; 129 by SIGHUP, 143 by SIGTERM
  141  nobody reads standard output any more"""
EXIT_STATUSES = _STATUSES.format(
    "what could not be read,\n"
    "       did not fit or did not stay; of status less than --require asks for",
    "",
)
EXIT_STATUSES_OF_REPORT = _STATUSES.format(
    "a file that could not\n       be read, or a picture that could not be written",
    ", or a file that is no report",
)
EXIT_STATUSES_OF_COMPLETION = _STATUSES.format(
    "the script could not\n       be written", ", or argcomplete is not installed"
)
_LEAST_WATCH_SECONDS, _MOST_WATCH_SECONDS = 0.1, 86400.0


def add_showing(parser: argparse.ArgumentParser, *, each: bool = True) -> None:
    parser.add_argument("--verbose", "-v", action="store_true", help="every figure there is")
    if each:
        parser.add_argument(
            "--each",
            action="store_true",
            help=f"a row for each shard, also of more than {MOST_SHARDS}",
        )


def add_watching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watch",
        nargs="?",
        const=DEFAULT_SECONDS,
        type=_seconds_argument,
        metavar="SECONDS",
        help=f"look again every SECONDS (default: {DEFAULT_SECONDS:g}), until Ctrl-C, or until "
        "what --require asks for is resident",
    )
    parser.add_argument(
        "--require",
        type=_share_argument,
        metavar="SHARE",
        help="exit status 0 only if at least that much is resident: 100%%, 99.5%%, or 0.995",
    )


def with_seconds(words: Sequence[str]) -> list[str]:
    """`status --watch PATH` says nothing of seconds, although a PATH could stand in their place."""
    found = list(words)
    for place, word in enumerate(words[1:], 1):
        if words[0] == "status" and word == "--watch":
            following = "".join(words[place + 1 : place + 2])
            if not re.fullmatch(r"-?[0-9.]+", following):
                found[place] = f"--watch={DEFAULT_SECONDS}"
    return found


def _seconds_argument(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not _LEAST_WATCH_SECONDS <= number <= _MOST_WATCH_SECONDS:
        between = f"{_LEAST_WATCH_SECONDS:g} to {_MOST_WATCH_SECONDS:g}"
        raise argparse.ArgumentTypeError(f"must be a number of seconds, {between}, not {text!r}")
    return number


def _share_argument(text: str) -> Required:
    try:
        return parse_share(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
