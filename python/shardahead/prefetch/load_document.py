"""The document of one load, as SHARDAHEAD_REPORT has it written: docs/json.md. It gathers what is
known and writes nothing; load_record.py does. Any thread.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import socket
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from shardahead.checkpoint.shards import Shard
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.figures import LoadFigures
from shardahead.prefetch.options import PrefetchOptions
from shardahead.prefetch.series import Series
from shardahead.version import __version__

SCHEMA = "shardahead/load/1"

# Named where this process has imported them: importing is for others.
_LIBRARIES = ("torch", "safetensors", "transformers", "sglang", "vllm", "tensorrt_llm")
_MOST_HOST = 64  # characters of it in a file's name


@dataclasses.dataclass(frozen=True)
class LoadStart:
    """What is known of a load from its beginning on. `started_seconds` is since 1970, `number`
    counts the loads of this process.
    """

    entry: str
    shards: Sequence[Shard]
    options: PrefetchOptions
    topology: LocalTopology
    started_seconds: float
    number: int


def file_name(start: LoadStart) -> str:
    """One that no other load has: its time, host, local rank, process and number."""
    when = datetime.fromtimestamp(start.started_seconds, timezone.utc)
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())[:_MOST_HOST] or "_"
    return (
        f"{when:%Y%m%dT%H%M%S.%fZ}-{host}-rank{start.topology.rank}-pid{os.getpid()}"
        f"-{start.number}.json"
    )


def load_document(
    start: LoadStart, figures: LoadFigures, series: Series, seconds: float, ended: str
) -> dict[str, Any]:
    """Everything, in types that the json module writes. Paths are as Python has them: a byte 0xNN
    that is not UTF-8 is the character U+DCNN.
    """
    report = figures.prefetch.report() if figures.prefetch is not None else None
    last = series.samples[-1]
    return {
        "schema": SCHEMA,
        "entry": start.entry,
        "mode": figures.mode,
        "ended": ended,
        "reason": report.incomplete_reason() if report is not None else None,
        "started": datetime.fromtimestamp(start.started_seconds, timezone.utc).isoformat(),
        "seconds": seconds,
        "total_bytes": sum(shard.size_bytes for shard in start.shards),
        "read_bytes": last.read_bytes,
        "consumed_bytes": last.consumed_bytes,
        "process": {
            "pid": os.getpid(),
            "number": start.number,
            "local_rank": start.topology.rank,
            "local_size": start.topology.size,
            "topology_source": start.topology.source,
        },
        "node": _node(),
        "versions": _versions(),
        "settings": dataclasses.asdict(start.options),
        "report": report.to_dict() if report is not None else None,
        "learned": _learned(figures),
        "files": [{"path": s.path, "size_bytes": s.size_bytes} for s in start.shards],
        "series": series.to_dict(),
    }


def _learned(figures: LoadFigures) -> dict[str, Any] | None:
    """None where nothing is learned. What was brought in for nothing, as a part of it, is not known
    before something was touched.
    """
    if figures.learning is None:
        return None
    learned = figures.learning.figures()
    brought_in_bytes = None
    share = None
    if figures.prefetch is not None and figures.mode != "pread":
        report = figures.prefetch.report()
        brought_in_bytes = report.resident_bytes + report.read_bytes + report.shared_bytes
        if learned.touched_bytes and brought_in_bytes:
            share = max(0.0, 1 - learned.touched_bytes / brought_in_bytes)
    return {
        "learned": learned.learned,
        "profile": learned.profile,
        "wanted_bytes": learned.wanted_bytes,
        "brought_in_bytes": brought_in_bytes,
        "touched_bytes": learned.touched_bytes,
        "for_nothing_share": share,
    }


def _node() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "boot_id": _boot_id(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


def _boot_id() -> str | None:
    """Of this kernel since it was started: ranks of one node have the same."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return None


def _versions() -> dict[str, str]:
    found = {"shardahead": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            found[name] = str(version)
    return found
