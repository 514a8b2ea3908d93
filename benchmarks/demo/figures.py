"""The figures of the demo: one Run a method and round, shown as a table and as a picture."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from shardahead.prefetch.report import describe_method


@dataclass(frozen=True)
class Run:
    """One method's load by all ranks. Bytes served and requests are None on the local disk."""

    method: str
    started: float
    seconds: float
    checkpoint_bytes: int
    served_bytes: int | None
    requests: int | None
    major_faults: int
    wrong_tensors: int
    tensors: int
    ranks: list[dict[str, Any]]
    served_curve: list[tuple[float, int]]

    def times_link(self, rate_mb_per_s: float) -> float:
        """The time of the load over the time that the link needs for the checkpoint."""
        return self.seconds * rate_mb_per_s * 1e6 / self.checkpoint_bytes


def median_run(runs: list[Run]) -> Run:
    """The run with the median time."""
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def show(rounds: dict[str, list[Run]], rate_mb_per_s: float | None) -> None:
    """A row a method: medians over the rounds, with the least and the most where there are more."""
    table = Table(title="cold load by all ranks")
    heads = ("", "time", "times the link's time", "share of the link", "bytes served / checkpoint")
    for head in (*heads, "major faults", "tensors bit-identical"):
        table.add_column(head, justify="right")
    for method, runs in rounds.items():
        link = "-", "-"
        if rate_mb_per_s:
            times = [run.times_link(rate_mb_per_s) for run in runs]
            link = spread(times, 2), f"{100 / statistics.median(times):.0f} %"
        served = [r.served_bytes / r.checkpoint_bytes for r in runs if r.served_bytes is not None]
        identical = sum(run.tensors - run.wrong_tensors for run in runs)
        table.add_row(
            method,
            f"{spread([run.seconds for run in runs], 2)} s",
            *link,
            spread(served, 3) if served else "-",
            spread([run.major_faults for run in runs], 0),
            f"{identical} of {sum(run.tensors for run in runs)}",
        )
    print_table(table)


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """As wide as the terminal, or wide enough where there is none."""
    stream = stream or sys.stdout
    Console(file=stream, width=None if stream.isatty() else 130).print(table)


def spread(values: list[float] | list[int], digits: int) -> str:
    """The median, and where there are more than one value the least and the most."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def draw(rounds: dict[str, list[Run]], rate_mb_per_s: float | None, path: Path) -> None:
    """Bytes served and tensors consumed (the slowest rank) over time, one panel a method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    runs = [median_run(of_method) for of_method in rounds.values()]
    figure, panels = plt.subplots(1, len(runs), sharey=True, figsize=(11, 4.5))
    longest = max(run.seconds for run in runs)
    for panel, run in zip(panels, runs, strict=True):
        if rate_mb_per_s:
            end = run.checkpoint_bytes / (rate_mb_per_s * 1e6)
            line = [0, run.checkpoint_bytes / 2**30]
            panel.plot([0, end], line, color="0.6", linestyle="--", label="the link's rate")
        if run.served_curve:
            times = [at - run.started for at, _ in run.served_curve]
            served = [count / 2**30 for _, count in run.served_curve]
            panel.plot(times, served, color="tab:blue", label="served by the filesystem")
        slowest = max(run.ranks, key=lambda rank: float(rank["ended"]))
        times = [at - run.started for at, _ in slowest["timeline"]]
        consumed = [count / 2**30 for _, count in slowest["timeline"]]
        panel.plot(times, consumed, color="tab:orange", label="consumed by the slowest rank")
        panel.set_title(f"{run.method}: {run.seconds:.1f} s")
        panel.set_xlabel("seconds")
        panel.set_xlim(0, longest * 1.02)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("GiB")
    panels[0].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def report_line(run: Run) -> str:
    report = run.ranks[0]["report"]
    method = describe_method(report["strategy_used"], report["step_bytes"], report["step_source"])
    return (
        f"{report['read_bytes'] / 2**20:.0f} MiB of its own share read, "
        f"{report['waited_seconds']:.2f} s waited for bytes, "
        f"{method}, {report['cpu_seconds']:.2f} s of processor time"
    )
