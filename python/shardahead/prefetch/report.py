"""The report of one prefetch as text, as one log line and as JSON. It measures nothing itself."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from shardahead import _core
from shardahead.units import counted, format_bytes, format_rate


@dataclass(frozen=True)
class Report:
    """The figures of one prefetch by one participant. Byte counts are of its own share.

    `planned_bytes` is the sum of `resident_bytes` (in the page cache already), `read_bytes`
    (brought in), `shared_bytes` (brought in by others on this node), `failed_bytes` and, once done,
    `left_out_bytes` (cancelled before their turn, or beyond the window). `node_read_bytes` all of
    this node have brought in since it started, some of it twice; with a fixed share, or without
    shared memory, it is `read_bytes`. `lost_bytes` is the part of `read_bytes` that was advised,
    did not arrive, and was then read with pread. `inflight_bytes` is what the node might have in
    flight at the end, 0 without a cap, `rate_limit_bytes_per_s` the limit in force, of the node
    where the work was shared on a board, else of this process; 0 without one. `limited_by` is what
    kept it from being faster, as far as that is known: "rate_limit"; "storage", where more in
    flight brought no more; "threads", where they had less in flight than might have been;
    "inflight_bytes", where these were set and nothing was tried; else "unknown". `cpu_seconds` is
    the processor time of the worker threads, `waited_seconds` how long a weight iterator waited for
    bytes. `window_bytes` is how far the prefetch might be ahead (0: no limit), `window_source`
    whether that was "given", asked for by "memory", or "none": as it is now, for it follows what
    memory leaves. `refetched_bytes` were brought in once more for this process's consumer: they had
    been evicted before it came to them. `dropped_bytes` this process dropped behind all consumers.
    `partition` is how the work was shared; where that is not as asked for, `partition_reason` says
    why. `keeps_pages` is whether the mounts leave in the page cache what was brought in, None where
    that is not known; where they do not, the prefetch has ended by itself, and `keeps_pages_reason`
    has the remedy. `learned` is "no" without `learn=`, "recorded" where there was no profile to go
    by, "used" where there was, and "wrong" where bytes were touched that are not in it;
    `touched_bytes` is what the consumer was seen to have touched so far, in grains of 64 KiB, None
    where nobody looks. `errors` holds the first of `error_count` errors, as OSError with errno,
    filename and the attributes operation and offset.
    """

    planned_bytes: int
    resident_bytes: int
    read_bytes: int
    lost_bytes: int
    shared_bytes: int
    node_read_bytes: int
    failed_bytes: int
    left_out_bytes: int
    refetched_bytes: int
    dropped_bytes: int
    seconds: float
    cpu_seconds: float
    waited_seconds: float
    strategy: str
    strategy_used: str
    step_bytes: int
    step_source: str
    threads: int
    inflight_bytes: int
    rate_limit_bytes_per_s: int
    limited_by: str
    block_bytes: int
    window_bytes: int
    window_source: str
    partition: str
    partition_reason: str
    keeps_pages: bool | None
    keeps_pages_reason: str
    learned: str
    touched_bytes: int | None
    local_rank: int
    local_size: int
    topology_source: str
    done: bool
    cancelled: bool
    error_count: int
    errors: tuple[OSError, ...]

    @property
    def bytes_per_second(self) -> float:
        """Bytes brought in per second; 0 where nothing was."""
        return self.read_bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def complete(self) -> bool:
        """Whether every planned byte was resident or brought in."""
        return (
            self.done
            and self.error_count == 0
            and self.failed_bytes == 0
            and self.left_out_bytes == 0
        )

    def incomplete_reason(self) -> str | None:
        """Why not every planned byte was brought in, in one line; None where every one was."""
        if self.complete:
            return None
        reasons = []
        if self.keeps_pages_reason:
            reasons.append(self.keeps_pages_reason)
        if self.errors:
            more = f" (and {self.error_count - 1} more)" if self.error_count > 1 else ""
            reasons.append(f"{describe_error(self.errors[0])}{more}")
        elif self.failed_bytes:
            reasons.append(f"{format_bytes(self.failed_bytes)} could not be read by others")
        if self.cancelled:
            reasons.append("cancelled")
        if self.left_out_bytes:
            beyond = self.window_source == "memory" and not self.cancelled
            why = f", beyond the {format_bytes(self.window_bytes)} that fit in memory"
            reasons.append(f"{format_bytes(self.left_out_bytes)} left out{why if beyond else ''}")
        if not self.done:
            reasons.append("still running")
        return "; ".join(reasons)

    def text(self) -> str:
        """One line for people and logs: of what there was."""
        parts = []
        if self.read_bytes:
            parts.append(
                f"{format_bytes(self.read_bytes)} read in {self.seconds:.2f} s "
                f"({format_rate(self.bytes_per_second)}{describe_limit(self.limited_by)})"
            )
        elif not self.resident_bytes and not self.shared_bytes:
            parts.append(f"nothing read in {self.seconds:.2f} s")
        if self.resident_bytes:
            parts.append(f"{format_bytes(self.resident_bytes)} already resident")
        if self.shared_bytes:
            parts.append(f"{format_bytes(self.shared_bytes)} brought in by others")
        if self.failed_bytes:
            parts.append(f"{format_bytes(self.failed_bytes)} failed")
        if self.left_out_bytes:
            parts.append(f"{format_bytes(self.left_out_bytes)} left out")
        if self.keeps_pages is False:
            parts.append("ended because the mount does not keep pages")
        if self.refetched_bytes:
            parts.append(f"{format_bytes(self.refetched_bytes)} fetched twice")
        if self.waited_seconds:
            parts.append(f"consumer waited {self.waited_seconds:.2f} s")
        how = [
            f"local rank {self.local_rank} of {self.local_size} ({self.topology_source})",
            counted(self.threads, "thread"),
        ]
        if self.read_bytes:
            how.append(describe_method(self.strategy_used, self.step_bytes, self.step_source))
        parts.append(", ".join([*how, f"{self.cpu_seconds:.2f} s of processor time"]))
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that the json module writes. The paths of errors are as Python has
        them: os.fsencode() gives back what is not UTF-8.
        """
        fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "errors"
        }
        fields["bytes_per_second"] = self.bytes_per_second
        fields["complete"] = self.complete
        fields["errors"] = [
            {
                "errno": error.errno,
                "message": error.strerror,
                "operation": getattr(error, "operation", None),
                "path": os.fsdecode(error.filename) if error.filename is not None else "",
                "offset": getattr(error, "offset", None),
            }
            for error in self.errors
        ]
        return fields


def describe_limit(limited_by: str, rate_limit: str = "the rate limit") -> str:
    """What to say behind a rate, where it is known what kept it from being more."""
    if limited_by == "storage":
        return ": the storage's limit"
    return f": {rate_limit}" if limited_by == "rate_limit" else ""


def describe_method(strategy_used: str, step_bytes: int, step_source: str) -> str:
    """How bytes were brought in: each strategy with the unit that it works in."""
    if strategy_used == "pread":
        return strategy_used
    if strategy_used == "populate":
        return f"populate in windows of {format_bytes(_core.POPULATE_BYTES)}"
    return f"{strategy_used} in steps of {format_bytes(step_bytes)} ({step_source})"


def describe_error(error: OSError) -> str:
    """One line: operation, path, offset, cause. The path is quoted: it may hold anything."""
    operation = getattr(error, "operation", "open")
    offset = getattr(error, "offset", None)
    place = f" at offset {offset}" if offset else ""
    return f"{operation} {_quoted(error.filename)!r}{place}: {error.strerror}"


def describe_failure(error: Exception) -> str:
    """As `describe_error` where it is an error of a path, else in its own words."""
    if isinstance(error, OSError) and error.filename is not None:
        return describe_error(error)
    return str(error)


def make_report(core: _core.Report, **options: Any) -> Report:
    """The core's figures together with `options`, the fields that only Python knows."""
    figures = {
        field.name: getattr(core, field.name)
        for field in dataclasses.fields(Report)
        if field.name not in options
    }
    figures["errors"] = tuple(figures["errors"])
    return Report(**figures, **options)


def _quoted(path: str | bytes | None) -> str:
    """A path that can be written to any stream: bytes that are not UTF-8 become \\xNN."""
    raw = os.fsencode(path) if path is not None else b""
    return raw.decode("utf-8", "backslashreplace")
