"""The handle of a prefetch: what Python holds of the threads that move bytes, which live in the C++
core. It waits, cancels, reports, and tells the core how far a consumer is. What the iterators need
beside that is not here (consumer.py). Any thread.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn

from shardahead.arguments import seconds, whole_number
from shardahead.checkpoint.shards import Shard
from shardahead.prefetch.ending import Ending
from shardahead.prefetch.figures import PrefetchFigures
from shardahead.prefetch.load_record import LoadRecord
from shardahead.prefetch.progress import Progress
from shardahead.prefetch.report import Report, describe_error

logger = logging.getLogger("shardahead")

_WAIT_SLICE_SECONDS = 0.05  # between two looks at Ctrl-C


class PrefetchHandle:
    """A running prefetch. Dropping the last reference cancels it, and so does the end of a `with`
    block, however it ends; neither waits for reads in flight, or for anything else.

    `shards` are its files, in the order in which they are brought in. All methods may be called
    from any thread. In a forked child the handle is inert.
    """

    def __init__(
        self,
        figures: PrefetchFigures,
        shards: Sequence[Shard],
        record: LoadRecord | None = None,
        *,
        logs_end: bool = True,
    ) -> None:
        self._core = core = figures.core
        self._figures = figures
        self._record = record  # of a load that is this prefetch
        self._process = os.getpid()
        self._unlogged = [True]  # emptied by the one that logs: pop() is atomic
        self._logs_end = logs_end
        self._load_error: Exception | None = None
        self._callbacks: list[Callable[[PrefetchHandle], object]] = []
        self.shards: tuple[Shard, ...] = tuple(shards)
        self._ending = Ending(core, self)

    def __del__(self) -> None:
        if hasattr(self, "_ending"):
            self._ending.drop(self, self._callbacks)

    def wait(self, timeout: float | None = None) -> None:
        """Returns when the prefetch has ended, also by cancel() or with errors.

        `timeout` is in seconds; raises TimeoutError after it. Ctrl-C interrupts at once.
        """
        if not self._wait(timeout):
            raise TimeoutError(f"the prefetch has not ended within {timeout} s")

    def cancel(self) -> None:
        """Takes no further block, and returns at once. Reads in flight end by themselves."""
        self._core.cancel()

    def stop(self, timeout: float | None = 60.0) -> None:
        """Cancels and waits up to `timeout` seconds, None for ever, for the threads to end: for
        reads in flight, on a server that may not answer. Never raises for what the prefetch did,
        nor when they have not ended: they then end with their last read.
        """
        self.cancel()
        self._wait(timeout)
        self._log_once()
        if self._record is not None:
            self._record.end()

    def add_done_callback(self, function: Callable[[PrefetchHandle], object]) -> None:
        """Calls `function(handle)` once, when the prefetch has ended, in whatever way: in a thread
        that waits for that, one for each handle, in the order in which they were added; at once and
        in this thread where it has ended. What it raises is logged. Also those of a handle that is
        dropped are called, and it is cancelled all the same; those that are left at the exit of the
        process, and those of a forked child, are not. Raises RuntimeError where the system has no
        thread for it, or the interpreter is going down.
        """
        if not callable(function):
            raise TypeError(f"a callback must be callable, not {type(function).__name__}")
        if not self._ending.tell(self._callbacks, function):
            self._log_once()
            self._call(function)

    def __await__(self) -> Generator[Any, None, Report]:
        """Under asyncio: the report, when the prefetch has ended, as by wait(). Any number of tasks
        of any loop may wait. A task that is cancelled, or whose time is up, ends its wait and not
        the prefetch: that takes cancel(), or dropping the handle, which a waiting task holds.
        """
        return self._when_ended().__await__()

    @property
    def done(self) -> bool:
        """Whether all threads have ended."""
        return self._core.done

    @property
    def failed(self) -> bool:
        """Whether a block could not be brought in."""
        return self._core.report().error_count > 0

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled before it was done."""
        return self._core.cancelled

    @property
    def errors(self) -> tuple[tuple[str, OSError], ...]:
        """(path, error) of the first blocks that failed; see Report.errors."""
        return tuple((error.filename, error) for error in self._core.report().errors)

    def progress(self) -> Progress:
        """How far it has got; costs next to nothing."""
        figures = self._core.progress()
        return Progress(
            planned_bytes=figures.planned_bytes,
            done_bytes=figures.done_bytes,
            node_read_bytes=figures.node_read_bytes,
            seconds=figures.seconds,
            limited_by=figures.limited_by,
            failed_bytes=figures.failed_bytes,
        )

    def report(self) -> Report:
        """The figures so far; final once `done`."""
        return self._figures.report()

    def consumed(
        self,
        file: int,
        offset: int,
        needed_offset: int | None = None,
        held_from_file: int | None = None,
    ) -> None:
        """For `consumer=True`: everything before byte `offset` of `shards[file]` has been consumed.

        `needed_offset`, where given, is the end of what is wanted next: the window reaches at least
        to there. The window is ahead of the slowest consumer of this node; one that has not moved
        for 2.5 s is not waited for. Where memory is short, what all have passed is dropped from the
        page cache; not from `shards[held_from_file]` on, where given, for what is still mapped
        cannot be dropped. Raises IndexError where there is no such file.
        """
        file, offset = whole_number("file", file), whole_number("offset", offset)
        if needed_offset is not None:
            needed_offset = whole_number("needed_offset", needed_offset)
        if held_from_file is not None:
            held_from_file = whole_number("held_from_file", held_from_file)
        needed = offset if needed_offset is None else needed_offset
        self._core.consumed(file, offset, needed, held_from_file)

    def __enter__(self) -> PrefetchHandle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            self._note_failed_load(error)
        self.stop(timeout=0)

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else "done" if self.done else "running"
        progress = self.progress()
        return (
            f"<PrefetchHandle {state}, {progress.done_bytes} of {progress.planned_bytes} bytes, "
            f"{len(self.shards)} files>"
        )

    def __reduce__(self) -> NoReturn:
        # A copy would cancel the prefetch of the other when it is dropped.
        raise TypeError("a PrefetchHandle cannot be copied or pickled")

    async def _when_ended(self) -> Report:
        await self._ending.ended()
        self._log_once()
        return self.report()

    def _note_failed_load(self, error: Exception) -> None:
        """The load for which this is has ended by `error`: so the log does not say that it goes
        on. To be told before stop().
        """
        self._load_error = error

    def _call_back(self) -> None:
        """The end has come. In a thread of ours, or while the handle is dropped, or in both: there
        is nobody to raise to, and one that raises SystemExit keeps none from being called.
        """
        with suppress(IndexError):  # there are no more
            while True:
                self._call(self._callbacks.pop(0), BaseException)

    def _call(
        self,
        function: Callable[[PrefetchHandle], object],
        caught: type[BaseException] = Exception,
    ) -> None:
        try:
            function(self)
        except caught:
            logger.exception("a callback of a prefetch failed")

    def _wait(self, timeout: float | None) -> bool:
        timeout = seconds("timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _WAIT_SLICE_SECONDS if deadline is None else deadline - time.monotonic()
            if self._core.wait(max(0.0, min(left, _WAIT_SLICE_SECONDS))):
                self._log_once()
                return True
            if left <= 0:
                return False

    def _log_once(self) -> None:
        """One line per prefetch, however many files failed."""
        if os.getpid() != self._process:
            return  # the parent's to tell
        try:
            self._unlogged.pop()
        except IndexError:
            return
        if not self._logs_end:
            return
        report = self.report()
        if report.keeps_pages is False:
            logger.warning("prefetch ended: %s", report.keeps_pages_reason)
        elif report.error_count:
            message = "prefetch incomplete, the load goes on without it: %s (%d errors in all); %s"
            failure = self._load_error
            if failure is not None:
                message = (
                    "prefetch incomplete, and the load has failed (%s): %s (%d errors in all); %s"
                )
            logger.warning(
                message,
                *([] if failure is None else [type(failure).__name__]),
                describe_error(report.errors[0]),
                report.error_count,
                report.text(),
            )
        else:
            logger.info("prefetch: %s", report.text())
