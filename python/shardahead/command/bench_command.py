"""What `bench` does: finds the files of its PATHs as every command does, and becomes the program
shardahead-bench, which measures them. For the main thread.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import sysconfig
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from shardahead.command.completion import in_list
from shardahead.command.endings import interruptibly
from shardahead.command.results import DONE
from shardahead.command.standard_streams import flush_standard_streams
from shardahead.command.typed_files import selection_of, shards_of
from shardahead.prefetch.options import STRATEGIES

_BENCH = "shardahead-bench"
# Options of `warm` that mean nothing here, and what is to be typed.
_OF_WARM = {
    "--inflight": "bench reads without a limit; how much in flight is enough, warm finds by itself",
    "--rate-limit": "bench reads as fast as it can; "
    "for less of it there are --limit, --repeats and --states",
}
_IN_LISTS = {"--strategy": STRATEGIES, "--states": ("cold", "warm")}


class _Version(argparse.Action):
    """Of the program that measures."""

    def __call__(self, *_: Any) -> NoReturn:
        _become_bench(["--version"])


class _OfWarm(argparse.Action):
    """Says why it is no option here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        name = self.option_strings[0]
        parser.error(f"{name} is an option of warm: {_OF_WARM[name]}")


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Those of the program, which checks their values itself: lists, separated by commas."""
    for names, metavar, does in (
        (("--strategy", "--strategies"), "LIST", "ways to read (default: auto,fadvise,pread)"),
        (("--threads",), "LIST", "worker threads, each 1 to 256 (default: 1,4)"),
        (("--block-size", "--block-sizes"), "LIST", "bytes of a block (default: 16MiB)"),
        (("--states",), "LIST", "of the page cache (default: cold,warm)"),
        (("--repeats",), "N", "how often all cells are visited (default: 3)"),
        (
            ("--limit",),
            "BYTES",
            "measured per cell, from the first file on; 0: all (default: 2GiB)",
        ),
        (("--output",), "FILE", "write the JSON object to FILE too"),
    ):
        option: Any = parser.add_argument(*names, metavar=metavar, help=does)
        if names[0] in _IN_LISTS:
            option.completer = in_list(_IN_LISTS[names[0]])
    parser.add_argument(
        "--verbose",
        "-v",
        action="store_true",
        help="all columns of the table, however wide the terminal is",
    )
    for name in _OF_WARM:
        parser.add_argument(name, action=_OfWarm, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--version", action=_Version, nargs=0, help="of " + _BENCH)


def bench(options: argparse.Namespace) -> int:
    """Of several local ranks one measures, and the others are done. Raises OSError where the
    program is not there, and as `shards_of` does.
    """
    shards = interruptibly(partial(shards_of, options))
    if options.shows:
        _become_bench([*_words_of(options), "--", *(shard.path for shard in shards)])
    return DONE


def _words_of(options: argparse.Namespace) -> list[str]:
    """The options of the program."""
    words = [f"--shown-as={_as_typed(options)}"]
    for name in ("strategy", "threads", "block_size", "states", "repeats", "limit", "output"):
        value = getattr(options, name)
        if value is not None:
            words.append(f"--{name.replace('_', '-')}={value}")
    words += [f"--{name}" for name in ("verbose", "json") if getattr(options, name)]
    return words


def _as_typed(options: argparse.Namespace) -> str:
    """What names the files in a command, for a shell."""
    return shlex.join([*selection_of(options), *options.path])


def _become_bench(arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by shardahead-bench, so that signals and exit status are its own."""
    program = _find_bench()
    if program is None:
        raise FileNotFoundError(
            f"{_BENCH} is neither in {sysconfig.get_path('scripts')}, nor beside "
            f"{sys.executable}, nor on PATH: it is installed with the package"
        )
    flush_standard_streams()
    # Python ignores them, and what is ignored stays so in the program that it becomes.
    ignored: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            ignored[number] = signal.signal(number, signal.SIG_DFL)
        os.execv(program, [_BENCH, *arguments])
    finally:
        for number, handler in ignored.items():
            signal.signal(number, handler)


def _find_bench() -> str | None:
    for folder in (sysconfig.get_path("scripts"), Path(sys.executable).parent):
        found = shutil.which(_BENCH, path=str(folder))
        if found is not None:
            return found
    return shutil.which(_BENCH)
