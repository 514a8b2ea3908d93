"""The process beside a node's own that talks to the other nodes (exchanger.py): begun, told,
listened to, ended. It is a fork, which is there at once; Python and its imports would take a fifth
of a second of a processor on each node.

Begun while there is one thread; then say() and stop() are for any, lines() is for one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

_ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_END_SECONDS = 2.0


class Talker:
    """A process that runs `main`, with what is told on its standard input, and what it tells on its
    standard output. `quiet`: what it says on standard error is for nobody.
    """

    def __init__(self, main: Callable[[], object], *, quiet: bool) -> None:
        told, telling = os.pipe()
        heard, saying = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._process = os.fork()
        if self._process == 0:
            try:
                os.close(telling)
                os.close(heard)
                _become(main, told, saying, quiet=quiet)
            finally:
                os._exit(1)
        os.close(told)
        os.close(saying)
        self._telling = os.fdopen(telling, "w")
        self._heard = os.fdopen(heard)
        self._saying = threading.Lock()
        self._ending = threading.Lock()

    def say(self, told: dict[str, Any]) -> None:
        """Where it has ended, to nobody."""
        with self._saying, suppress(OSError, ValueError):
            self._telling.write(json.dumps(told) + "\n")
            self._telling.flush()

    def lines(self) -> Iterator[str]:
        """What it tells, until it ends."""
        yield from self._heard

    def stop(self) -> None:
        """Ends it, wherever it is."""
        with self._ending:
            if self._process:
                os.kill(self._process, signal.SIGKILL)
                self._reap(time.monotonic() + _END_SECONDS)
            self._process = 0

    def _reap(self, deadline: float) -> None:
        """One that hangs in a write to a disk is not waited for."""
        with suppress(ChildProcessError):  # who ignores SIGCHLD has none to wait for
            while os.waitpid(self._process, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                time.sleep(0.005)


def _become(main: Callable[[], object], told: int, saying: int, *, quiet: bool) -> None:
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.dup2(told, 0)
    os.dup2(saying, 1)
    if quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # In place of the parent's, which have what it has read and not used.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    main()
