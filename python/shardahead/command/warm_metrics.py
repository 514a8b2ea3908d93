"""The figures of `warm --metrics-file`: their names, units and meanings. Pure; any thread."""

from __future__ import annotations

from shardahead.command.metrics_file import Metric
from shardahead.command.staying import StayFigures
from shardahead.prefetch.report import Report
from shardahead.version import __version__

# Of the first prefetch, by the field of its report: name, kind, and what it is.
_OF_REPORT = (
    ("planned_bytes", "shardahead_warm_planned_bytes", "gauge", "What this rank is to bring in."),
    ("resident_bytes", "shardahead_warm_resident_bytes", "gauge", "Was in the page cache before."),
    ("read_bytes", "shardahead_warm_read_bytes_total", "counter", "Brought in from storage."),
    (
        "shared_bytes",
        "shardahead_warm_shared_bytes_total",
        "counter",
        "Brought in by other processes of this node.",
    ),
    ("failed_bytes", "shardahead_warm_failed_bytes_total", "counter", "Could not be read."),
    (
        "left_out_bytes",
        "shardahead_warm_left_out_bytes",
        "gauge",
        "Left out, because it did not fit in memory or the command was ended.",
    ),
    ("error_count", "shardahead_warm_errors_total", "counter", "Reads that failed."),
    ("seconds", "shardahead_warm_seconds", "gauge", "How long it has taken so far, or took."),
    (
        "cpu_seconds",
        "shardahead_warm_cpu_seconds_total",
        "counter",
        "Processor time of the worker threads.",
    ),
    (
        "rate_limit_bytes_per_s",
        "shardahead_warm_rate_limit_bytes_per_second",
        "gauge",
        "What may be read on average; 0 is no limit.",
    ),
)


def warm_metrics(
    report: Report | None,
    figures: StayFigures,
    *,
    began: float,
    running: bool,
    staying: bool,
    complete: bool | None,
    follow: bool,
    keep: bool,
) -> list[Metric]:
    """`report` of the first prefetch; None before it has begun. `began`: seconds since 1970."""
    found = [
        Metric(
            "shardahead_info",
            "gauge",
            "Always 1; the version is a label.",
            1,
            (("version", __version__),),
        ),
        _gauge("start_time_seconds", "When the command began, since 1970.", began),
        _gauge("running", "1 while the command runs, 0 once it has ended.", running),
        _gauge(
            "staying", "1 from the end of the first prefetch on, with --keep or --follow.", staying
        ),
        _gauge("complete", "1 if all that is wanted is warm.", bool(complete)),
        _gauge("shards", "Files of the checkpoint.", figures.shards),
        _gauge("size_bytes", "Their size in all.", figures.size_bytes),
    ]
    if report is not None:
        found += [Metric(n, kind, text, getattr(report, f)) for f, n, kind, text in _OF_REPORT]
    if follow:
        found += [
            Metric(
                "shardahead_follow_rounds_total",
                "counter",
                "How often something new was brought in.",
                figures.rounds,
            ),
            Metric(
                "shardahead_follow_read_bytes_total",
                "counter",
                "Brought in from storage after the first prefetch, because it was new.",
                figures.read_bytes,
            ),
            Metric(
                "shardahead_follow_growing_shards",
                "gauge",
                "Shards that are still written to, or could not be brought in.",
                figures.growing,
            ),
        ]
    if keep:
        found += _of_keep(figures)
    return found


def _of_keep(figures: StayFigures) -> list[Metric]:
    found = [
        Metric(
            "shardahead_keep_evicted_bytes_total",
            "counter",
            "What was seen to be evicted and then brought back.",
            figures.evicted_bytes,
        ),
        Metric(
            "shardahead_keep_restored_bytes_total",
            "counter",
            "Brought back from storage.",
            figures.restored_bytes,
        ),
        Metric("shardahead_keep_locked_bytes", "gauge", "Locked in memory.", figures.locked_bytes),
        Metric(
            "shardahead_keep_backed_off",
            "gauge",
            "1 while memory is too short to bring anything back.",
            figures.backed_off,
        ),
    ]
    if figures.resident_bytes is not None:
        text = "What is in the page cache of what is kept."
        name = "shardahead_keep_resident_bytes"
        found.append(Metric(name, "gauge", text, figures.resident_bytes))
    return found


def _gauge(name: str, text: str, value: float) -> Metric:
    return Metric(f"shardahead_warm_{name}", "gauge", text, value)
