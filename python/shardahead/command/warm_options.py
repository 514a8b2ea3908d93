"""The options of `warm` that say how gently it reads, whether it stays, and what it tells others:
what they are called, and which of them do not go together. Pure; any thread.
"""

from __future__ import annotations

import argparse
import math

from shardahead.arguments import parse_rate

#: How often `--keep` looks for what was evicted, and `--follow` for what is new, in seconds.
DEFAULT_KEEP_INTERVAL_SECONDS = 10.0
DEFAULT_FOLLOW_INTERVAL_SECONDS = 2.0
_MOST_SECONDS = 30 * 86400.0
_MOST_RATE = 2**63 - 1
_LEAST_RATE = 10_000  # of one that nobody doubts


def add_warm_options(parser: argparse.ArgumentParser) -> None:
    gentle = parser.add_argument_group("to leave room for others")
    gentle.add_argument(
        "--rate-limit",
        type=rate_argument,
        metavar="RATE",
        help="bytes per second that this node takes from storage on average: 200MB; 0: no limit",
    )
    gentle.add_argument(
        "--nice", action="store_true", help="read and compute after all others of this node"
    )
    stay = parser.add_argument_group("to stay")
    stay.add_argument(
        "--keep",
        action="store_true",
        help="stay until stopped: keep the shards open, and bring back what is evicted",
    )
    stay.add_argument(
        "--keep-interval",
        type=_seconds,
        metavar="SECONDS",
        help=f"how often --keep looks (default: {DEFAULT_KEEP_INTERVAL_SECONDS:g})",
    )
    stay.add_argument(
        "--lock", action="store_true", help="with --keep: lock the shards in memory (mlock)"
    )
    stay.add_argument(
        "--follow",
        action="store_true",
        help="stay until stopped: bring in what is added, written to or replaced",
    )
    stay.add_argument(
        "--follow-interval",
        type=_seconds,
        metavar="SECONDS",
        help=f"how often --follow looks (default: {DEFAULT_FOLLOW_INTERVAL_SECONDS:g})",
    )
    stay.add_argument(
        "--follow-idle",
        type=_seconds,
        metavar="SECONDS",
        help="with --follow: end when nothing has changed for so long and all of it is warm",
    )
    parser.add_argument(
        "--metrics-file",
        metavar="FILE",
        help="keep the figures in FILE, as the textfile collector of Prometheus reads them",
    )


def check_warm_options(options: argparse.Namespace) -> None:
    """Raises ValueError, with what to type instead, for options that do not go together."""
    if options.lock and not options.keep:
        raise ValueError("--lock locks what --keep keeps: type --keep --lock")
    if options.keep_interval is not None and not options.keep:
        raise ValueError("--keep-interval says how often --keep looks: add --keep")
    for name in ("interval", "idle"):
        if getattr(options, f"follow_{name}") is not None and not options.follow:
            raise ValueError(f"--follow-{name} is a part of --follow: add --follow")
    if options.keep and options.follow_idle is not None:
        raise ValueError(
            "--keep stays until it is stopped, --follow-idle ends by itself: type one of them"
        )
    if options.keep and options.force:
        raise ValueError(
            "--keep stays within what fits in memory, --force goes beyond it: type one of them"
        )
    if options.metrics_file is not None and "\0" in options.metrics_file:
        raise ValueError("--metrics-file has a NUL in it")
    if options.metrics_file == "":
        raise ValueError("--metrics-file takes the name of a file, and got an empty one")


def doubtful_rate(rate_limit: int | None) -> str | None:
    """What to say of a rate at which a checkpoint takes for days: a unit was forgotten."""
    if not rate_limit or rate_limit >= _LEAST_RATE:
        return None
    return (
        f"--rate-limit {rate_limit} is {rate_limit} bytes per second; "
        f"for megabytes type {rate_limit}MB"
    )


def rate_argument(text: str) -> int:
    try:
        rate = parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if rate > _MOST_RATE:
        raise argparse.ArgumentTypeError(f"must be at most {_MOST_RATE}, not {text}")
    return rate


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}") from None
    if math.isnan(seconds) or not 0.1 <= seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"must be from 0.1 to {_MOST_SECONDS:.0f} s, not {text}")
    return seconds
