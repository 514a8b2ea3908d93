"""The command `shardahead`: its parser, and how it ends; for people, for programs (--json).

Results go to standard output, progress and errors to standard error. Exit status: 0 done,
1 incomplete with the reason, 2 wrong usage, 128 and its number for a signal that ended it. For the
main thread.

argparse parses: it is no dependency, and what is mistyped is said before rich is imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from shardahead import _core
from shardahead.about import version_text
from shardahead.command import commands, residency_commands
from shardahead.command.argument_types import bytes_argument, count_argument
from shardahead.command.bench_command import add_bench_options, bench
from shardahead.command.completion import (
    add_completion_parser,
    answer_shell,
    names_of_checkpoints,
)
from shardahead.command.doctor import DEFAULT_READ_BYTES
from shardahead.command.endings import ended_by_signals, interruptibly, reason_of, status_of
from shardahead.command.failure_text import failure_text
from shardahead.command.json_documents import json_text
from shardahead.command.parser import Parser
from shardahead.command.report_command import add_report_parser
from shardahead.command.results import INCOMPLETE, WRONG_USAGE
from shardahead.command.showing_options import (
    EXIT_STATUSES,
    add_showing,
    add_watching,
    with_seconds,
)
from shardahead.command.showing_rank import shows
from shardahead.command.stage_command import add_stage_options, stage
from shardahead.command.standard_streams import (
    OutputError,
    complain,
    flush_standard_streams,
    provide_standard_streams,
    show,
)
from shardahead.command.warm_options import add_warm_options
from shardahead.environment import new_warning
from shardahead.prefetch.options import PARTITIONS, STRATEGIES

_MOST_BYTES = 2**63 - 1
_EXAMPLES = """\
Each PATH stands for itself, and they add up:
  /models/m                    a folder: what its loaders would take
  /models/m/x.safetensors.index.json
                               an index, also *.index.fp16.json
  /models/m/*.safetensors      shards; quoted too, '/models/m/*.gguf'
  /models/m/*                  its index decides; configurations are passed over
  Qwen/Qwen2-0.5B              a repository in the local Hugging Face cache
  hub/models--Qwen--Qwen2-0.5B
                               its folder there
  /models/pipeline             of diffusers: the parts of its model_index.json
  /runs/step-1000              of torch.distributed.checkpoint: its *.distcp
  /models/gguf --include '*Q4_K_M*'
                               one of several checkpoints in a folder"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    provide_standard_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    left: SystemExit | None = None
    try:
        with ended_by_signals():
            status = _run(words)
    except KeyboardInterrupt as ended:  # with nothing to report
        complain(f"incomplete: {reason_of(ended)}")
        status = status_of(ended)
    except OutputError as error:
        return _without_output(error)
    except SystemExit as error:  # argparse: help, the version, wrong usage
        left, status = error, 0
    try:
        flush_standard_streams()
    except OutputError as error:
        return status or _without_output(error)
    if left is not None:
        raise left
    return status


def _run(words: Sequence[str]) -> int:
    options: argparse.Namespace | None = None
    try:
        parser = _parser()
        answer_shell(parser)
        options = parser.parse_args(with_seconds(words))
        options.shows = shows(options)
        if options.shows and (warning := new_warning(os.environ)):
            complain(warning)
        run: Callable[[argparse.Namespace], int] = options.run
        try:
            return run(options)
        except KeyboardInterrupt as ended:
            with suppress(OutputError):
                _show_reason(options, reason_of(ended))
            raise
    except (ValueError, TypeError) as error:
        reason, status = str(error), WRONG_USAGE
    except OSError as error:
        reason, status = interruptibly(partial(failure_text, error)), INCOMPLETE
    complain(reason)
    _show_reason(options, reason)
    return status


def _show_reason(options: argparse.Namespace | None, reason: str) -> None:
    """All that there is to say to a program, where there was nothing to report."""
    if options is not None and options.json and options.shows:
        show(json_text(options.command, {"reason": reason}))


def _without_output(error: OutputError) -> int:
    """The exit status where results could not be printed. A reader that has gone knows it."""
    if not isinstance(error.error, BrokenPipeError):
        complain(f"cannot write to standard output: {error.error.strerror}")
    return error.status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="shardahead",
        description="Warms the page cache with model checkpoints.",
        epilog=EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        *("--version", "-V"),
        action=_Version,
        nargs=0,
        help="and what this kernel has of what is used",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    warm = _command(subparsers, "warm", commands.warm, "bring a checkpoint into the page cache")
    _add_sharing(warm)
    warm.add_argument(
        "--threads",
        type=count_argument(1, _core.MAX_THREADS),
        metavar="N",
        help=f"worker threads of this process (default: {_core.DEFAULT_THREADS})",
    )
    warm.add_argument(
        "--inflight",
        type=bytes_argument(0, _MOST_BYTES),
        metavar="BYTES",
        help="what the node may have in flight (default: found by measuring)",
    )
    warm.add_argument("--strategy", choices=STRATEGIES, help="how to read (default: auto)")
    warm.add_argument(
        "--force", action="store_true", help="go on beyond what fits in memory, evicting pages"
    )
    warm.add_argument(
        "--quiet", "-q", action="store_true", help="no progress, neither a bar nor lines"
    )
    add_showing(warm, each=False)
    add_warm_options(warm)
    for name, run, description in (
        ("status", residency_commands.status, "how much of a checkpoint is in the page cache"),
        ("evict", residency_commands.evict, "drop a checkpoint from the page cache"),
    ):
        residency = _command(subparsers, name, run, description)
        add_showing(residency)
        if name == "status":
            add_watching(residency)
    add_stage_options(
        _command(subparsers, "stage", stage, "copy a checkpoint to this node's own disk", paths="*")
    )
    plan = _command(subparsers, "plan", commands.plan, "what warm would read, in which order")
    _add_sharing(plan)
    plan.add_argument(
        "--learned",
        metavar="PATH",
        help="also what the profile of a load with learn= wants, or each in a folder",
    )
    plan.add_argument(
        "--picture",
        metavar="FILE",
        help="with --learned: draw it into FILE too, x.svg say; takes matplotlib",
    )
    add_showing(plan)
    examine = _command(
        subparsers, "doctor", commands.doctor, "what limits loading it here, and what to change"
    )
    examine.add_argument(
        "--read-bytes",
        type=bytes_argument(0, _MOST_BYTES),
        metavar="BYTES",
        default=DEFAULT_READ_BYTES,
        help="what may be read of each mount to measure it (default: 256MiB)",
    )
    add_bench_options(
        _command(
            subparsers,
            "bench",
            bench,
            "measure which settings suit a mount; drops these files from the page cache",
        )
    )
    add_report_parser(subparsers)
    add_completion_parser(subparsers)
    return parser


class _Version(argparse.Action):
    """Not by argparse's own, which wants the text before anybody asks for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        show(version_text())
        parser.exit()


def _command(
    subparsers: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    description: str,
    *,
    paths: str = "+",
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=description,
        description=f"{name}: {description}.",
        epilog=f"{_EXAMPLES}\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    path: Any = parser.add_argument(
        "path",
        nargs=paths,
        metavar="PATH",
        help="a folder, an index, shards, a glob, or a repository in the Hugging Face cache",
    )
    path.completer = names_of_checkpoints
    for option, does in (
        ("--include", "only files of these names, instead of the rule of a folder"),
        ("--exclude", "no files of these names"),
    ):
        parser.add_argument(
            option, action="append", default=[], metavar="GLOB", help=f"{does}; may be repeated"
        )
    parser.add_argument(
        "--all", action="store_true", help="every shard of a folder, also variants and copies"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run, command=name)
    return parser


def _add_sharing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--block-size",
        type=bytes_argument(_core.MIN_BLOCK_BYTES, _core.MAX_BLOCK_BYTES),
        metavar="BYTES",
        help="e.g. 16MiB (the default)",
    )
    parser.add_argument(
        "--partition", choices=PARTITIONS, help="how ranks share (default: dynamic)"
    )
    for name, least in (("--local-rank", 0), ("--local-size", 1)):
        parser.add_argument(
            name,
            type=count_argument(least, 2**31 - 1),
            metavar="N",
            help="default: from the launcher",
        )
