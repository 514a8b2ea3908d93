"""What `warm` has done, in one line for people: what matters first. Pure.

The line is of the node: of all that its ranks, and whoever else loads the same, brought in while
this process ran. Where no one counts that, it is of this rank's share, and says so.
"""

from __future__ import annotations

from shardahead.prefetch.report import Report, describe_limit
from shardahead.units import counted, format_bytes, format_rate, format_seconds


def result_line(report: Report, note: str = "", *, rate_limit: str = "--rate-limit") -> str:
    """`note`: what else is known of the files. `rate_limit`: who asked for one."""
    came = _what_came(report, rate_limit)
    return f"warm: {came}{_what_did_not(report)}{note}{_whose(report)}"


def round_line(report: Report, shards: int, missing: int = 0) -> str:
    """Of what came after the first time. `missing`: how many shards are waited for."""
    here_bytes, read_bytes = _here_and_read(report)
    came = [f"{format_bytes(read_bytes)} read"] if read_bytes or not here_bytes else []
    if here_bytes > read_bytes:
        came.append(f"{format_bytes(here_bytes - read_bytes)} were resident")
    more = f"; {missing} missing" if missing else ""
    return f"{counted(shards, 'shard')} more: {', '.join(came)}{more}{_whose(report)}"


def tells_for_the_node(report: Report) -> bool:
    """Whether this process is the one of its node's ranks that tells what they have done."""
    return report.local_rank == 0


def is_of_the_node(report: Report) -> bool:
    """Whether all ranks of the node have the same figures."""
    return report.local_size == 1 or report.partition == "dynamic"


def tells_why(report: Report) -> bool:
    """Whether it is this process that has to say why the work is incomplete."""
    return tells_for_the_node(report) or not is_of_the_node(report) or report.error_count > 0


def _what_came(report: Report, rate_limit: str) -> str:
    if not report.planned_bytes:
        return "nothing to read: the shards are empty"
    here_bytes, read_bytes = _here_and_read(report)
    if not here_bytes:
        return f"nothing in {format_seconds(report.seconds)}"
    if not read_bytes:
        every = "all " if here_bytes == report.planned_bytes else ""
        return f"{every}{format_bytes(here_bytes)} were resident"
    rate = format_rate(read_bytes / report.seconds) if report.seconds > 0 else "at once"
    rate += describe_limit(report.limited_by, rate_limit)
    text = f"{format_bytes(read_bytes)} in {format_seconds(report.seconds)}, {rate}"
    if here_bytes > read_bytes:
        text += f"; {format_bytes(here_bytes - read_bytes)} were resident"
    return text


def _here_and_read(report: Report) -> tuple[int, int]:
    """How much is there, and how much of it was read for that."""
    here_bytes = report.planned_bytes - report.failed_bytes - report.left_out_bytes
    if not report.done and not report.cancelled:
        here_bytes = report.resident_bytes + report.read_bytes + report.shared_bytes
    # Twice, where it had been evicted; and by others, who may want more than this process does.
    return here_bytes, min(report.node_read_bytes, here_bytes)


def _what_did_not(report: Report) -> str:
    text = ""
    if report.failed_bytes:
        text += f"; {format_bytes(report.failed_bytes)} could not be read"
    if report.left_out_bytes:
        text += f"; {format_bytes(report.left_out_bytes)} left out"
    return text


def _whose(report: Report) -> str:
    if is_of_the_node(report):
        return f" ({report.local_size} local ranks)" if report.local_size > 1 else ""
    return f" (share of local rank {report.local_rank} of {report.local_size})"
