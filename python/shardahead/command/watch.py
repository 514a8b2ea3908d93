"""`status --watch`: looks again and again, until it is ended or what is required is resident. On a
terminal it redraws, else each look is a line, with what --each and -v ask for, or with --json an
object. Of several local ranks each looks, and one shows.

One thread, which signals interrupt (endings.py): what may wait for storage is done by another.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from shardahead.checkpoint.shards import Shard
from shardahead.command.endings import interruptibly, reason_of, status_of
from shardahead.command.json_documents import json_text
from shardahead.command.readiness import Required, why_not_ready
from shardahead.command.residency_screen import (
    residency_document,
    resident_of,
    shards_shown,
    status_line,
    told_by,
)
from shardahead.command.results import DONE
from shardahead.command.standard_streams import OutputError, complain, show
from shardahead.command.typed_files import shards_of
from shardahead.node.residency import FileResidency, residency_of
from shardahead.units import format_rate

#: Between two looks where nothing is said of it.
DEFAULT_SECONDS = 2.0
_ROWS_BESIDE = 10  # of a terminal, that are not shards

Look = list[FileResidency]


def watch(options: argparse.Namespace, required: Required | None) -> int:
    """The exit status: 0 once what is required is resident, or that of the signal that ends it."""
    shards = interruptibly(partial(shards_of, options))
    growth = Growth()
    try:
        with _screen(options, required) as draw:
            while True:
                files = interruptibly(partial(_look_at, shards))
                draw(files, growth.text(time.monotonic(), resident_of(files)))
                if required is not None and why_not_ready(files, required) is None:
                    return DONE
                time.sleep(options.watch)
    except KeyboardInterrupt as ended:
        # How a watch ends that waits for nothing.
        if required is not None:
            complain(f"incomplete: {reason_of(ended)}")
        return status_of(ended)


class Growth:
    """How fast more becomes resident, or less. Pure: it is told the time."""

    def __init__(self) -> None:
        self._before: tuple[float, int] | None = None

    def text(self, seconds: float, resident_bytes: int | None) -> str:
        """Since the look before; nothing where nothing has changed."""
        before = self._before
        self._before = None if resident_bytes is None else (seconds, resident_bytes)
        if before is None or resident_bytes is None or seconds <= before[0]:
            return ""
        grown = resident_bytes - before[1]
        rate = format_rate(abs(grown) / (seconds - before[0]))
        return f", {'+' if grown > 0 else '-'}{rate}" if grown else ""


def _look_at(shards: Sequence[Shard]) -> Look:
    return [residency_of(shard.path) for shard in shards]


@contextmanager
def _screen(
    options: argparse.Namespace, required: Required | None
) -> Iterator[Callable[[Look, str], None]]:
    if not options.shows:
        yield lambda _files, _grown: None
        return
    if options.json:
        yield lambda files, _: show(_object(files, required))
        return
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=sys.stdout)
        if console.is_interactive:  # not one of TERM=dumb
            live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

            def redraw(files: Look, grown: str) -> None:
                sources = ["", told_by(files)] if options.verbose else []
                most = max(console.height - _ROWS_BESIDE - len(sources), 1)
                lines = [f"status: {status_line(files)}{grown}"]
                lines += shards_shown(files, each=options.each, most_lines=most)
                lines += sources
                try:
                    live.update(Text.from_ansi("\n".join(lines)), refresh=True)
                except OSError as error:
                    raise OutputError(error) from None

            with suppress(OSError):
                live.start()
            try:
                yield redraw
            finally:
                with suppress(OSError):
                    live.stop()
            return
    yield lambda files, grown: show(_lines(options, files, grown))


def _object(files: Look, required: Required | None) -> str:
    reason = None if required is None else why_not_ready(files, required)
    return json_text("status", residency_document(files, reason, {}))


def _lines(options: argparse.Namespace, files: Look, grown: str) -> str:
    """One, unless more is asked for."""
    lines = [f"status: {status_line(files)}{grown}"]
    if options.each:
        lines += shards_shown(files, each=True)
    if options.verbose:
        lines += ["", told_by(files)]
    if len(lines) > 1:  # else the next look would begin in the middle of it
        lines += [""]
    return "\n".join(lines)
