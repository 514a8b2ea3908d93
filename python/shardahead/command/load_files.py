"""Files that SHARDAHEAD_REPORT had written, read back and checked. They may come from anywhere:
what is not as docs/json.md says is an error that names the file. May wait for storage; any thread.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from shardahead.checkpoint.opening import naming, open_regular
from shardahead.prefetch.load_document import SCHEMA
from shardahead.prefetch.series import Sample
from shardahead.units import quoted

_MOST_FILE_BYTES = 256 << 20  # a million files of a checkpoint have less
_MOST_COUNT = 2**63 - 1
# What docs/schemas/load-1.json requires of it and of its objects; what is shown of it is of the
# right type besides.
_REQUIRED = {
    "": "schema entry mode ended reason started seconds total_bytes read_bytes consumed_bytes "
    "process node versions settings report files series",
    "process": "pid number local_rank local_size topology_source",
    "node": "host boot_id kernel machine cpus",
    "versions": "shardahead python",
    "settings": "threads block_bytes block_size_given strategy partition window_bytes "
    "inflight_bytes board_folder memory_budget_bytes rate_limit_bytes_per_s report",
    "report": "planned_bytes resident_bytes read_bytes lost_bytes shared_bytes node_read_bytes "
    "failed_bytes left_out_bytes refetched_bytes dropped_bytes seconds cpu_seconds waited_seconds "
    "strategy strategy_used step_bytes step_source threads inflight_bytes rate_limit_bytes_per_s "
    "block_bytes window_bytes window_source partition partition_reason keeps_pages "
    "keeps_pages_reason local_rank local_size topology_source done cancelled error_count errors "
    "bytes_per_second complete",
    "series": "interval_seconds seconds done_bytes read_bytes consumed_bytes claimed_bytes "
    "window_bytes inflight_bytes",
}
_FIGURES = ("planned_bytes", "resident_bytes", "read_bytes", "shared_bytes", "failed_bytes")


class LoadFileError(ValueError):
    """A file that is no report of a load, or not a whole one; the message names it."""


@dataclass(frozen=True)
class LoadFile:
    """One of them. `document` is all of it; what is shown of it has been checked. `started_seconds`
    is since 1970, `samples` are in the order of time.
    """

    file: str
    document: dict[str, Any]
    started_seconds: float
    seconds: float
    local_rank: int
    node: str
    checkpoint: tuple[tuple[str, int], ...]
    samples: tuple[Sample, ...]

    @property
    def ended_seconds(self) -> float:
        return self.started_seconds + self.seconds

    @property
    def report(self) -> dict[str, Any]:
        """Of the prefetch; empty where there was none."""
        found: dict[str, Any] = self.document["report"] or {}
        return found


def read_load_files(paths: Sequence[str]) -> list[LoadFile]:
    """Of files, and of folders all that are named as such a file is. Raises OSError for what cannot
    be read, LoadFileError for what is none, and ValueError for folders without any.
    """
    return [read_load_file(path) for path in _paths_in(paths)]


def _paths_in(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        # Not what is being written, which begins with a dot.
        names = [n for n in os.listdir(path) if n.endswith(".json") and not n.startswith(".")]
        if not names:
            raise ValueError(
                f"no reports (*.json) in the folder {quoted(path)}: each load leaves one in the "
                "folder that SHARDAHEAD_REPORT names"
            )
        yield from (os.path.join(path, name) for name in sorted(names))


def read_load_file(path: str) -> LoadFile:
    """One file; raises as `read_load_files` does."""
    descriptor, status = open_regular(path)
    with open(descriptor, "rb") as file, naming(path):
        if status.st_size > _MOST_FILE_BYTES:
            raise _wrong(path, f"it has {status.st_size} bytes, more than {_MOST_FILE_BYTES}")
        content = file.read(_MOST_FILE_BYTES)
    try:
        document = json.loads(content, parse_constant=_no_number)
    except RecursionError:
        raise _wrong(path, "it is nested too deeply") from None
    except ValueError as error:
        raise _wrong(path, f"it is no JSON, or not all of it ({error})") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise _wrong(path, f"its schema is not {SCHEMA!r}")
    try:
        return _checked(path, document)
    except _FieldError as error:
        raise _wrong(path, str(error)) from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _wrong(path: str, problem: str) -> LoadFileError:
    return LoadFileError(f"{quoted(path)} is no report of a load: {problem}")


class _FieldError(Exception):
    """What is wrong with one field, by its name."""


def _checked(path: str, document: dict[str, Any]) -> LoadFile:
    _require_all(document)
    text = _text(document, "started")
    try:
        started = datetime.fromisoformat(text)
        started_seconds = started.timestamp()
    except (ValueError, OverflowError, OSError):
        raise _FieldError(f"started is no time: {quoted(text)}") from None
    if started.tzinfo is None:
        raise _FieldError(f"started is a time without its zone: {quoted(text)}")
    node, process = _part(document, "node"), _part(document, "process")
    for name in ("entry", "ended"):
        _text(document, name)
    for name in ("mode", "reason"):
        if document[name] is not None:
            _text(document, name)
    for name in ("total_bytes", "read_bytes", "consumed_bytes"):
        _count(document, name)
    if document["report"] is not None:
        _check_report(_part(document, "report"))
    _check_versions(document)
    return LoadFile(
        file=path,
        document=document,
        started_seconds=started_seconds,
        seconds=_number(document, "seconds"),
        local_rank=_count(process, "local_rank"),
        node=str(node.get("boot_id") or "") + _text(node, "host"),
        checkpoint=_files(document),
        samples=_samples(_part(document, "series")),
    )


def _require_all(document: dict[str, Any]) -> None:
    for name, required in _REQUIRED.items():
        if name == "report" and document[name] is None:
            continue
        part = _part(document, name) if name else document
        for field in required.split():
            if field not in part:
                raise _FieldError(f"{name and name + '.'}{field} is missing")


def _check_report(report: dict[str, Any]) -> None:
    for name in _FIGURES:
        _count(report, name)
    for name in ("seconds", "cpu_seconds", "waited_seconds"):
        _number(report, name)
    for name in ("strategy_used", "partition"):
        _text(report, name)
    if "limited_by" in report:  # files of 0.2.0 have none
        _text(report, "limited_by")
    for name in ("threads", "block_bytes", "window_bytes", "left_out_bytes"):
        _count(report, name)
    if not isinstance(report.get("complete"), bool):
        raise _FieldError("report.complete is neither true nor false")


def _check_versions(document: dict[str, Any]) -> None:
    versions = _part(document, "versions")
    for name in ("shardahead", "python"):
        _text(versions, name)
    _text(_part(document, "node"), "kernel")


def _files(document: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    files = document.get("files")
    if not isinstance(files, list) or not files or not all(isinstance(f, dict) for f in files):
        raise _FieldError("files is no list of files")
    return tuple((_text(file, "path"), _count(file, "size_bytes")) for file in files)


def _samples(series: dict[str, Any]) -> tuple[Sample, ...]:
    columns = []
    for name in Sample._fields:
        values = series.get(name)
        if not isinstance(values, list):
            raise _FieldError(f"series.{name} is no list")
        check = _number if name == "seconds" else _count
        columns.append([check({name: value}, name) for value in values])
    if not columns[0] or len({len(column) for column in columns}) != 1:
        raise _FieldError("the columns of series are empty, or not of one length")
    samples = tuple(map(Sample._make, zip(*columns, strict=True)))
    if any(b.seconds < a.seconds for a, b in pairwise(samples)):
        raise _FieldError("series.seconds goes back")
    return samples


def _part(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    if not isinstance(found, dict):
        raise _FieldError(f"{name} is no object")
    return found


def _text(document: dict[str, Any], name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str):
        raise _FieldError(f"{name} is no text")
    return found


def _count(document: dict[str, Any], name: str) -> int:
    found = document.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= _MOST_COUNT:
        raise _FieldError(f"{name} is no count")
    return found


def _number(document: dict[str, Any], name: str) -> float:
    found = document.get(name)
    if not isinstance(found, int | float) or isinstance(found, bool):
        raise _FieldError(f"{name} is no number of seconds")
    if not 0 <= found <= _MOST_COUNT or not math.isfinite(found):
        raise _FieldError(f"{name} is no number of seconds")
    return float(found)
