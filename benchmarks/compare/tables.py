"""Results as text: a table a case, and a summary in markdown. Measures and judges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.table import Table

from figures import print_table, spread
from job import METHODS
from records import CaseResult, MethodResult

_HEADS = (
    "",
    "time",
    "times the link's time",
    "bytes served / wanted",
    "major faults",
    "CPU s of the ranks",
    "switches",
    "CPU s/GiB of the prefetch",
    "waited s",
)
_ONCE = 1.01  # up to here the bytes crossed the link once


def show(result: CaseResult, stream: TextIO) -> None:
    """The table of one case."""
    table = Table(title=f"{result.case.name}: {result.conditions}")
    for head in _HEADS[:2] if result.case.resident else _HEADS:
        table.add_column(head, justify="right" if head else "left")
    for method in result.methods:
        cells = [time_cell(result, method)]
        if not result.case.resident:
            cells += _cells(method)
        table.add_row(method.method, *cells)
    print_table(table, stream)
    for method in result.methods:
        for text in _remarks(method):
            print(f"{method.method}: {text}", file=stream)


def time_cell(result: CaseResult, method: MethodResult) -> str:
    """Seconds, milliseconds where all is resident, or why there is no time."""
    seconds = method.values("seconds")
    if not seconds:
        return _without_figures(method)
    if result.case.resident:
        return f"{spread([1000 * value for value in seconds], 2)} ms"
    return f"{spread(seconds, 2)} s"


def _without_figures(method: MethodResult) -> str:
    if method.not_installed:
        return "not installed"
    problem = method.problem()
    return problem if problem.startswith("more than") else "failed"


def _cells(method: MethodResult) -> list[str]:
    return [
        _spread(method.values("ratio"), 2),
        _spread(method.values("served_ratio"), 3),
        _spread(method.sums("major_faults"), 0),
        _spread(method.sums("cpu_seconds"), 2),
        _spread(method.sums("switches"), 0),
        _spread(method.values("prefetch_cpu_s_per_gib"), 2),
        _spread(method.sums("waited_seconds"), 2),
    ]


def _spread(values: Sequence[float], digits: int) -> str:
    return spread(list(values), digits) if values else "-"


def _remarks(method: MethodResult) -> list[str]:
    """What the table has no room for."""
    remarks = []
    if method.not_installed:
        remarks.append(f"not installed: {method.not_installed}")
    bad = [load.problem for load in method.loads if load.problem]
    if bad:
        remarks.append(f"{len(bad)} of {len(method.loads)} loads without a time: {bad[0]}")
    remarks += sorted({load.note for load in method.loads if load.note})
    if method.verified:
        remarks.append(f"verified: {method.verified}")
    return remarks


def summary(results: Sequence[CaseResult]) -> str:
    """A row a case, a column a method: times the link's time, with the command that repeats it."""
    known = list(METHODS)
    names = list(dict.fromkeys(m.method for result in results for m in result.methods))
    names.sort(key=lambda name: known.index(name.split()[0]))
    lines = ["| case | " + " | ".join(names) + " | command |", "|" + "---|" * (len(names) + 2)]
    for result in results:
        by_name = {method.method: method for method in result.methods}
        cells = [_summary_cell(result, by_name.get(name)) for name in names]
        head = f"{result.case.name}: {result.conditions}"
        lines.append("| " + " | ".join([head, *cells, f"`{result.command}`"]) + " |")
    return "\n".join(lines)


def _summary_cell(result: CaseResult, method: MethodResult | None) -> str:
    if method is None:
        return "-"
    ratios = method.values("ratio")
    if not ratios:
        return time_cell(result, method)
    cell = spread(ratios, 2)
    served = method.values("served_ratio")
    if served and max(served) > _ONCE:
        cell += f", bytes x {spread(served, 2)}"
    failed = sum(bool(load.problem) for load in method.loads)
    return f"{cell}, {failed} of {len(method.loads)} without a time" if failed else cell
