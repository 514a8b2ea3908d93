"""Shows how far `warm` or `stage` is, on standard error, while it waits for the end: a bar on a
terminal, else one line now and then, as logs of batch systems and containers can bear.

Nothing that cannot be written is a reason to read less. For the main thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from shardahead.command.progress_text import (
    Beat,
    RecentRate,
    Work,
    begin_line,
    came,
    end_line,
    here,
    of_planned,
    rate_of_all,
    running_line,
    time_left,
)
from shardahead.command.standard_streams import complain
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.progress import Progress
from shardahead.units import format_rate, format_share

if TYPE_CHECKING:
    from rich.console import Console

#: Between two lines where there is no terminal.
LINE_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_RATE_SECONDS = 5.0  # that a bar's rate is of
_NARROW = 72  # a terminal of fewer columns has no room for every figure


class Running(Protocol):
    """What is waited for: it ends by itself."""

    @property
    def done(self) -> bool: ...
    def progress(self) -> Progress: ...


class _Shown(Protocol):
    def begin(self, progress: Progress) -> None: ...
    def look(self, progress: Progress) -> None: ...
    def end(self, progress: Progress) -> None: ...
    def close(self) -> None: ...


def wait_showing(handle: PrefetchHandle, *, quiet: bool) -> None:
    """Waits for the end of `handle`, and shows how far it is unless it is to be `quiet`."""
    if quiet:
        handle.wait()
        return

    def wait(seconds: float) -> None:
        with suppress(TimeoutError):
            handle.wait(seconds)

    show_until_done(handle, _work_of(handle), wait)


def show_until_done(running: Running, work: Work, wait: Callable[[float], object]) -> None:
    """Shows how far `running` is until it is done; `wait` waits for that, so long at most."""
    shown = _shown(work)
    try:
        shown.begin(running.progress())
        while not running.done:
            wait(_LOOK_SECONDS)
            shown.look(running.progress())
        shown.end(running.progress())
    finally:
        shown.close()


def _work_of(handle: PrefetchHandle) -> Work:
    report = handle.report()
    own_share = report.local_size > 1 and report.partition != "dynamic"
    return Work(len(handle.shards), report.local_rank, report.local_size, own_share)


def _shown(work: Work) -> _Shown:
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_interactive:  # not one of TERM=dumb
            return _Bar(work, console)
    return _Lines(work)


class _Lines:
    def __init__(self, work: Work) -> None:
        self._work = work
        self._beat = Beat(LINE_SECONDS)
        self._rate = RecentRate(LINE_SECONDS)

    def begin(self, progress: Progress) -> None:
        complain(begin_line(self._work, progress))

    def look(self, progress: Progress) -> None:
        self._rate.note(progress)
        if self._beat.is_due(progress.seconds):
            complain(running_line(self._work, progress, self._rate.bytes_per_second))

    def end(self, progress: Progress) -> None:
        complain(end_line(self._work, progress))

    def close(self) -> None:
        pass


class _Bar:
    """Drawn here alone, without a thread of rich's, which would tell of a terminal that is gone."""

    def __init__(self, work: Work, console: Console) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._rate = RecentRate(_RATE_SECONDS)
        self._narrow = console.width < _NARROW
        columns = ("{task.fields[done]}", "{task.fields[rate]}", "{task.fields[left]}")
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            *(TextColumn(column, markup=False) for column in columns),
            console=console,
            auto_refresh=False,
            expand=True,
        )
        about = work.name
        if work.own_share:
            about = f"{work.name}, rank {work.local_rank} of {work.local_size}"
        self._task = self._bars.add_task(about, done="", rate="", left="")

    def begin(self, progress: Progress) -> None:
        self._draw(progress, 0.0)
        with suppress(OSError):
            self._bars.start()

    def look(self, progress: Progress) -> None:
        self._rate.note(progress)
        self._draw(progress, self._rate.bytes_per_second)

    def end(self, progress: Progress) -> None:
        self._draw(progress, rate_of_all(progress))

    def close(self) -> None:
        with suppress(OSError):
            self._bars.stop()

    def _draw(self, progress: Progress, rate: float) -> None:
        done = format_share(here(progress), progress.planned_bytes)
        with suppress(OSError):
            self._bars.update(
                self._task,
                total=max(progress.planned_bytes, 1),
                completed=here(progress) if progress.planned_bytes else 1,
                done=done if self._narrow else of_planned(progress),
                rate=format_rate(rate) if came(progress) else "",
                left="" if self._narrow else time_left(progress, rate),
                refresh=True,
            )
