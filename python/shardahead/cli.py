"""The command `shardahead`: warm, status, evict, plan, doctor; for people, for programs (--json).

Results go to standard output, progress and errors to standard error. Exit status: 0 done,
1 incomplete with the reason, 2 wrong usage. `bench` becomes the program shardahead-bench.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from shardahead import commands
from shardahead.commands import INCOMPLETE, WRONG_USAGE, complain
from shardahead.doctor import DEFAULT_READ_BYTES
from shardahead.policy import PARTITIONS, STRATEGIES
from shardahead.report import describe_error
from shardahead.units import parse_bytes
from shardahead.version import __version__

_BENCH = "shardahead-bench"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if words[:1] == ["bench"]:
            _become_bench(words[1:])
        options = _parser().parse_args(words)
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except (ValueError, TypeError) as error:
        complain(str(error))
        return WRONG_USAGE
    except OSError as error:
        complain(describe_error(error) if error.filename is not None else str(error))
        return INCOMPLETE
    except KeyboardInterrupt:
        complain("interrupted")
        return INCOMPLETE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shardahead", description="Warms the page cache with model checkpoints."
    )
    parser.add_argument("--version", action="version", version=f"shardahead {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    warm = _command(subparsers, "warm", commands.warm, "bring a checkpoint into the page cache")
    _add_sharing(warm)
    warm.add_argument(
        "--threads", type=int, metavar="N", help="worker threads of this process (default: 4)"
    )
    warm.add_argument(
        "--inflight",
        type=_bytes_argument,
        metavar="BYTES",
        help="what the node may have in flight (default: found by measuring)",
    )
    warm.add_argument("--strategy", choices=STRATEGIES, help="how to read (default: auto)")
    warm.add_argument(
        "--force", action="store_true", help="go on beyond what fits in memory, evicting pages"
    )
    warm.add_argument("--quiet", "-q", action="store_true", help="no progress bar")
    _command(subparsers, "status", commands.status, "how much of a checkpoint is in the page cache")
    _command(subparsers, "evict", commands.evict, "drop a checkpoint from the page cache")
    plan = _command(subparsers, "plan", commands.plan, "what warm would read, in which order")
    _add_sharing(plan)
    examine = _command(
        subparsers, "doctor", commands.doctor, "what limits loading it here, and what to change"
    )
    examine.add_argument(
        "--read-bytes",
        type=_bytes_argument,
        metavar="BYTES",
        default=DEFAULT_READ_BYTES,
        help="what may be read of each mount to measure it (default: 256MiB)",
    )
    # Only for the list of commands: main() hands its arguments over before they are parsed.
    subparsers.add_parser("bench", help="measure which settings suit a mount", add_help=False)
    return parser


def _command(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], int], description: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=description, description=f"{name}: {description}."
    )
    parser.add_argument(
        "path", nargs="+", metavar="PATH", help="a folder, an index (*.index.json), or shards"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def _add_sharing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--block-size", type=_bytes_argument, metavar="BYTES", help="e.g. 16MiB (the default)"
    )
    parser.add_argument(
        "--partition", choices=PARTITIONS, help="how ranks share (default: dynamic)"
    )
    parser.add_argument("--local-rank", type=int, metavar="N", help="default: from the launcher")
    parser.add_argument("--local-size", type=int, metavar="N", help="default: from the launcher")


def _bytes_argument(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _become_bench(arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by shardahead-bench, so that signals and exit status are its own."""
    program = _find_bench()
    if program is None:
        raise FileNotFoundError(
            f"{_BENCH} is neither in {sysconfig.get_path('scripts')}, nor beside "
            f"{sys.executable}, nor on PATH: it is installed with the package"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, [_BENCH, *arguments])


def _find_bench() -> str | None:
    for folder in (sysconfig.get_path("scripts"), Path(sys.executable).parent):
        found = shutil.which(_BENCH, path=str(folder))
        if found is not None:
            return found
    return shutil.which(_BENCH)
