"""Figures in the text format of Prometheus, in a file that is always whole: written beside it, then
moved to its place. The textfile collector of the node exporter reads such files, `*.prom`.

`metrics_text` is pure. A writer has a thread of its own, which holds up nothing: a file on a server
that does not answer is not written. What cannot be written later on is said once.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shardahead.command.standard_streams import complain
from shardahead.units import printable

INTERVAL_SECONDS = 5.0
_END_SECONDS = 1.0
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(frozen=True)
class Metric:
    """One figure. kind: "gauge", or "counter" of which the name ends in `_total`."""

    name: str
    kind: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


def metrics_text(metrics: Sequence[Metric], labels: Mapping[str, str]) -> str:
    """As the file is written; `labels` are those of every figure. Raises ValueError for a name that
    is none.
    """
    lines: list[str] = []
    for metric in metrics:
        pairs = [*labels.items(), *metric.labels]
        for name in (metric.name, *(name for name, _ in pairs)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"no name of a metric or a label: {name!r}")
        lines.append(f"# HELP {metric.name} {_escaped(metric.help)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        inside = ",".join(f'{name}="{_quoted(value)}"' for name, value in pairs)
        lines.append(f"{metric.name}{{{inside}}} {_number(metric.value)}")
    return "".join(f"{line}\n" for line in lines)


def write_whole(path: str, text: str) -> None:
    """The file is as it was or as it is to be, never in between, also for who reads it now. Raises
    OSError as open() and rename() do.
    """
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name[:200]}.{os.getpid()}.tmp")
    try:
        Path(beside).write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def name_for_rank(path: str, local_rank: int, local_size: int) -> str:
    """Each local rank has a file of its own: warm.prom, and of several ranks warm.0.prom."""
    if local_size == 1:
        return path
    stem, suffix = os.path.splitext(path)
    return f"{stem}.{local_rank}{suffix}"


class MetricsWriter:
    """Writes what `collect` gives to the file: at once, every few seconds, and at the end."""

    def __init__(
        self, path: str, labels: Mapping[str, str], collect: Callable[[], Sequence[Metric]]
    ) -> None:
        self.path = path
        self._labels = dict(labels)
        self._collect = collect
        self._ended = threading.Event()
        self._due = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises OSError where the file cannot be written."""
        self._write()
        thread = threading.Thread(target=self._run, name="shardahead-metrics", daemon=True)
        with suppress(RuntimeError):  # no more threads: it is written at the end
            thread.start()
            self._thread = thread

    def write_soon(self) -> None:
        """Something has changed that others wait for."""
        self._due.set()

    def end(self) -> None:
        """Writes once more, and waits for that a moment."""
        self._ended.set()
        self._due.set()
        if self._thread is None:
            self._write_or_say()
        else:
            self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        ended = False
        while not ended:
            self._due.wait(INTERVAL_SECONDS)
            self._due.clear()
            ended = self._ended.is_set()  # before it collects: what is written last tells the end
            self._write_or_say()

    def _write(self) -> None:
        write_whole(self.path, metrics_text(self._collect(), self._labels))

    def _write_or_say(self) -> None:
        try:
            self._write()
            self._failed = False
        except OSError as error:
            if not self._failed:
                complain(f"--metrics-file {printable(self.path)}: {error.strerror}")
            self._failed = True

    _failed = False


def _number(value: float) -> str:
    """Whole numbers without a point, whatever their size."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    """What is not UTF-8 is written as \\xNN, for the file has to be UTF-8."""
    return _escaped(printable(text)).replace('"', '\\"')
