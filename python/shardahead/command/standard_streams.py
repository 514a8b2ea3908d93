"""Standard streams of a command: those that are closed, that are full, and that nobody reads.

Without them a program's files would get their numbers, and whatever is printed would go there. For
the main thread, before anything else is opened.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from typing import TextIO

from shardahead.units import printable

_CLOSED_PIPE = 128 + signal.SIGPIPE  # as shells say it of a program that the signal ends
_INCOMPLETE = 1


class OutputError(Exception):
    """Standard output takes no more; `error` is why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error

    @property
    def status(self) -> int:
        """The exit status that tells it."""
        return _CLOSED_PIPE if isinstance(self.error, BrokenPipeError) else _INCOMPLETE


def provide_standard_streams() -> None:
    """A standard stream that is closed becomes /dev/null, for this process and those it becomes."""
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())


def show(text: str) -> None:
    """Prints a result. Raises OutputError where it does not arrive."""
    try:
        print(text, flush=True)
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(error) from None


def complain(message: str) -> None:
    """One line for people on standard error. Where nobody can be told, nobody is."""
    try:
        print(f"shardahead: {printable(message)}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _discard(sys.stderr)


def flush_standard_streams() -> None:
    """What others printed, argparse and logging. Raises OutputError as `show` does."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _discard(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(error) from None


def _discard(stream: TextIO) -> None:
    """What is still in its buffer goes nowhere: the interpreter would try once more, and fail."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
