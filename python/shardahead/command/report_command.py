"""What `report` does: shows loads of which SHARDAHEAD_REPORT had files written, one in full,
several side by side. It reads those files and nothing else. One thread, as commands.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any

from shardahead.command.endings import interruptibly
from shardahead.command.error_meanings import meaning_in_document
from shardahead.command.json_documents import json_text
from shardahead.command.load_files import LoadFile, read_load_files
from shardahead.command.load_picture import draw
from shardahead.command.load_plot import Marks, marks_for, plot
from shardahead.command.loads import Load, group
from shardahead.command.results import DONE, finish
from shardahead.command.showing_options import EXIT_STATUSES_OF_REPORT
from shardahead.command.tables import drawn, new_table, output_encoding, showable
from shardahead.units import format_bytes, format_rate, printable

_WIDTH, _MOST_WIDTH = 80, 120
_LABEL_WIDTH = 13
_COLUMN_WIDTH = 16

Row = tuple[str, str]

_LIMITS = {
    "storage": "the storage",
    "rate_limit": "the rate limit",
    "threads": "threads",
    "inflight_bytes": "inflight_bytes",
}


def add_report_parser(subparsers: Any) -> None:
    does = "show loads of which SHARDAHEAD_REPORT had files written"
    parser = subparsers.add_parser(
        "report",
        help=does,
        description=f"report: {does}; several side by side.",
        epilog=EXIT_STATUSES_OF_REPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path", nargs="+", metavar="FILE", help="a file of SHARDAHEAD_REPORT, or a folder of them"
    )
    parser.add_argument(
        "--picture", metavar="FILE", help="draw it into FILE too, x.png say; takes matplotlib"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=report, command="report")


def report(options: argparse.Namespace) -> int:
    if options.picture == "":
        raise ValueError("--picture takes the name of a file, and got an empty one")
    loads = interruptibly(lambda: group(read_load_files(options.path)))
    if not options.shows:
        return DONE
    if options.picture is not None:
        interruptibly(partial(draw, loads, options.picture))
    if options.json:
        return finish(json_text("report", as_dict(loads)), None)
    text = as_text(loads, _width(), marks_for(output_encoding()))
    return finish(showable(text), None)


def _width() -> int:
    if not sys.stdout.isatty():
        return _WIDTH
    return max(_WIDTH, min(_MOST_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns))


def as_dict(loads: Sequence[Load]) -> dict[str, Any]:
    """Everything, in types that the json module writes."""
    return {
        "loads": [
            {
                "host": load.first.document["node"]["host"],
                "started": load.first.document["started"],
                "seconds": load.seconds,
                "ranks": len(load.processes),
                "total_bytes": load.total_bytes,
                "read_bytes": load.read_bytes,
                "consumed_bytes": load.consumed_bytes,
                "complete": load.complete,
                "processes": [{"file": each.file, **each.document} for each in load.processes],
            }
            for load in loads
        ],
        "reason": None,
    }


def as_text(loads: Sequence[Load], width: int, marks: Marks) -> str:
    """For people, in lines of `width` characters; only names may be longer."""
    if len(loads) == 1:
        (load,) = loads
        lines = [
            f"{label:<{_LABEL_WIDTH}}{printable(text)}".rstrip() for label, text in _rows(load)
        ]
        page = "\n".join(lines)
        if len(load.processes) > 1:
            page += "\n\n" + _rank_table(load)
        return f"{page}\n\n{_drawn(load, width, load.seconds, marks)}"
    parts = []
    at_once = max(2, (width - _LABEL_WIDTH) // _COLUMN_WIDTH)
    for begin in range(0, len(loads), at_once):
        parts.append(_comparison(loads[begin : begin + at_once], begin, width))
    longest_seconds = max(load.seconds for load in loads)
    for number, load in enumerate(loads, 1):
        parts.append(f"{number}. {_title(load)}\n{_drawn(load, width, longest_seconds, marks)}")
    return "\n\n".join(parts)


def _drawn(load: Load, width: int, seconds: float, marks: Marks) -> str:
    """How it went on, where it did."""
    return load.why_not_drawn or plot(load, width, seconds, marks)


def _title(load: Load) -> str:
    return printable(f"{load.first.document['entry']}, {_when(load)}, {_folder(load)}")


def _when(load: Load) -> str:
    try:
        when = datetime.fromtimestamp(load.started_seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def _folder(load: Load) -> str:
    folders = {os.path.dirname(path) for path, _ in load.first.checkpoint}
    return sorted(folders)[0] + (f" and {len(folders) - 1} more" if len(folders) > 1 else "")


def _rows(load: Load) -> list[Row]:
    """The page of one load."""
    document, versions = load.first.document, load.first.document["versions"]
    files = len(load.first.checkpoint)
    others = [f"{n} {v}" for n, v in versions.items() if n != "shardahead" and isinstance(v, str)]
    kind = (
        f"{document['entry']}, mode {document['mode']}" if document["mode"] else document["entry"]
    )
    rows = [
        ("load", f"{kind}: {', '.join(sorted({e.document['ended'] for e in load.processes}))}"),
        ("when", _when(load)),
        ("where", f"{document['node']['host']}, Linux {document['node']['kernel']}"),
        ("versions", f"shardahead {versions['shardahead']}, {', '.join(others)}"),
        ("files", f"{files} of {format_bytes(load.total_bytes)} in {_folder(load)}"),
        *_figures(load),
    ]
    reasons = {_why(each) for each in load.processes if each.document["reason"]}
    return [*rows, *(("incomplete", reason) for reason in sorted(reasons))]


def _why(file: LoadFile) -> str:
    """With what its first error means, which the load did not say."""
    meaning = meaning_in_document(file.report.get("errors"))
    return f"{file.document['reason']}{f'; {meaning}' if meaning else ''}"


def _figures(load: Load) -> list[Row]:
    """What is worth comparing."""
    rows = [
        ("ranks", str(len(load.processes))),
        ("time", f"{load.seconds:.2f} s"),
        ("brought in", format_bytes(load.read_bytes)),
        *([("rate", format_rate(load.bytes_per_second))] if load.read_bytes else []),
        ("consumed", format_bytes(load.consumed_bytes)),
        *_limit(load),
    ]
    if load.figure("seconds") is None:
        return rows
    return [
        *rows,
        ("resident", f"{format_bytes(load.figure('resident_bytes', max))} before"),
        ("waited", f"{load.figure('waited_seconds', max):.2f} s"),
        ("processor", f"{load.figure('cpu_seconds'):.2f} s"),
        ("how", _one_or_several(load, "strategy_used")),
        ("partition", _one_or_several(load, "partition")),
        ("threads", _one_or_several(load, "threads")),
        ("blocks", format_bytes(load.figure("block_bytes", max))),
        ("window", format_bytes(load.figure("window_bytes", max)) if _has_window(load) else "none"),
        ("failed", format_bytes(load.figure("failed_bytes"))),
        ("left out", format_bytes(load.figure("left_out_bytes"))),
    ]


def _limit(load: Load) -> list[Row]:
    """What is known to have kept it from being faster."""
    found = {each.report.get("limited_by", "unknown") for each in load.processes} - {"unknown"}
    names = sorted(_LIMITS.get(each, str(each)) for each in found)
    return [("limited by", printable(", ".join(names)))] if names else []


def _has_window(load: Load) -> bool:
    return bool(load.figure("window_bytes", max))


def _one_or_several(load: Load, name: str) -> str:
    return ", ".join(sorted({str(value) for value in load.figure(name, list)}))


def _rank_table(load: Load) -> str:
    heads = ("rank", "pid", "time", "brought in", "by others", "waited", "ended")
    rows = [
        (
            str(each.local_rank),
            printable(str(each.document["process"].get("pid"))),
            f"{each.seconds:.2f} s",
            format_bytes(each.document["read_bytes"]),
            format_bytes(each.report.get("shared_bytes", 0)),
            f"{each.report.get('waited_seconds', 0.0):.2f} s",
            printable(each.document["ended"]),
        )
        for each in load.processes
    ]
    return _table(heads, rows, _WIDTH)


def _comparison(loads: Sequence[Load], before: int, width: int) -> str:
    figures = [dict(_figures(load)) for load in loads]
    labels = list(dict.fromkeys(label for each in figures for label in each))
    heads = ("", *(str(before + number) for number in range(1, len(loads) + 1)))
    rows = [
        ("load", *(printable(load.first.document["entry"]) for load in loads)),
        ("host", *(printable(load.first.document["node"]["host"]) for load in loads)),
        ("files", *(format_bytes(load.total_bytes) for load in loads)),
        *((label, *(each.get(label, "-") for each in figures)) for label in labels),
    ]
    return _table(heads, rows, width)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    table = new_table()
    for column, head in enumerate(heads):
        table.add_column(head, justify="right" if column else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return drawn(table, width, terminal=False)
