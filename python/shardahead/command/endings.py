"""How a command ends before its time: by SIGINT, SIGTERM or SIGHUP, at once and with a report.

Signals become exceptions in the main thread, which therefore never waits for storage itself:
`interruptibly` does. Nothing here knows a command. For the main thread.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

#: What ends a command. As PID 1 of a container a process gets none of them without a handler.
ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_SIGNALLED = 128  # and the signal's number, as shells say it
_LOOK_SECONDS = 0.2  # another thread may have got the signal

T = TypeVar("T")


class Ended(KeyboardInterrupt):
    """A signal that ends a command, as an exception."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def reason_of(ended: KeyboardInterrupt) -> str:
    """Why a command is incomplete, for people."""
    number = _number_of(ended)
    if number == signal.SIGINT:
        return "interrupted"
    return f"terminated by {signal.Signals(number).name}"


def status_of(ended: KeyboardInterrupt) -> int:
    """The exit status of a command that was ended so."""
    return _SIGNALLED + _number_of(ended)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """In the body the first signal raises Ended, and a second one ends the process there and then.

    What is ignored stays ignored, under nohup say, and so do handlers that the program has set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def end(number: int, _frame: object) -> None:
        if came:
            os._exit(_SIGNALLED + number)
        came.append(number)
        raise Ended(number)

    before: dict[int, Any] = {}
    for ending in ENDING_SIGNALS:
        if signal.getsignal(ending) in (signal.SIG_DFL, signal.default_int_handler):
            before[ending] = signal.signal(ending, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interruptibly(work: Callable[[], T]) -> T:
    """What `work` gives, or raises. A thread of its own does it: a signal interrupts the wait for
    it, where it could not interrupt a call that waits for a server. Such a thread is left behind,
    and does not hold up the exit.
    """
    ended = threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    try:
        threading.Thread(target=run, name="shardahead-command", daemon=True).start()
    except RuntimeError:  # no more threads
        return work()
    while not ended.wait(_LOOK_SECONDS):
        pass
    if errors:
        raise errors[0]
    return results[0]


def _number_of(ended: KeyboardInterrupt) -> int:
    return ended.number if isinstance(ended, Ended) else signal.SIGINT
