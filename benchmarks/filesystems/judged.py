"""What is recorded of a filesystem, which rules it breaks, and the table. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

# Each is a cold load, but for the last: that is the plain loop in new processes, after `warm`.
PLAIN, ITERATORS, PREFETCHING, WARM, AFTER_WARM = (
    *("plain", "iterators", "prefetching", "warm"),
    "after warm",
)
OURS = (ITERATORS, PREFETCHING)
MOST_TIME_RATIO, MOST_TIME_S = 1.1, 1.0
MOST_BYTES_RATIO = 1.03
MOST_READ_AGAIN = 0.03
LEAST_COLD = 0.97
LIMIT_RATIO, LIMIT_S = 10, 60


@dataclass(frozen=True)
class Setting:
    """What all rows have in common."""

    checkpoint_bytes: int
    rate_mb_per_s: float
    round_trip_ms: float

    @property
    def link_s(self) -> float:
        """What the way to the bytes needs for all of them."""
        return self.checkpoint_bytes / (self.rate_mb_per_s * 1e6) + self.round_trip_ms / 1e3

    @property
    def limit_s(self) -> float:
        """After which a load is killed."""
        return LIMIT_RATIO * self.link_s + LIMIT_S


@dataclass(frozen=True)
class Load:
    """One load by all ranks, or one `warm`. `problem` says what was wrong, or is empty.

    `exit_status` and `complete` are those of `warm`, `said` its last line.
    """

    way: str
    ranks: int
    seconds: float | None
    served_bytes: int
    problem: str = ""
    exit_status: int | None = None
    complete: bool | None = None
    said: str = ""


@dataclass
class Row:
    """One filesystem: its loads, or why there are none."""

    name: str
    skipped: str = ""
    problem: str = ""
    mount: dict[str, Any] = field(default_factory=dict)
    counted: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    loads: list[Load] = field(default_factory=list)

    def of(self, way: str, ranks: int) -> list[Load]:
        return [load for load in self.loads if load.way == way and load.ranks == ranks]

    def seconds(self, way: str, ranks: int) -> float | None:
        """The median; None where a load did not end well."""
        found = [load.seconds for load in self.of(way, ranks)]
        ended = [one for one in found if one is not None]
        return median(ended) if ended and len(ended) == len(found) else None

    def served_bytes(self, way: str, ranks: int) -> float | None:
        found = [load.served_bytes for load in self.of(way, ranks) if load.seconds is not None]
        return median(found) if found else None

    def ranks(self) -> list[int]:
        return list(dict.fromkeys(load.ranks for load in self.loads))


def broken_rules(row: Row, setting: Setting, *, by_clock: bool = True) -> list[str]:
    """A line for each rule that the row breaks. Without `by_clock` no time is judged."""
    lines = [row.problem] if row.problem else []
    for ranks in row.ranks():
        found = [*_problems(row, ranks, setting), *_more_bytes(row, ranks)]
        if by_clock:
            found += _slower(row, ranks)
        found += _read_again(row, ranks, setting)
        lines += [f"{line}, by {ranks}" for line in found]
    return lines


def _problems(row: Row, ranks: int, setting: Setting) -> Iterable[str]:
    for load in row.loads:
        if load.ranks != ranks:
            continue
        if load.problem:
            yield f"{load.way}: {load.problem}"
        elif load.way in (PLAIN, *OURS):
            share = load.served_bytes / setting.checkpoint_bytes
            if share < LEAST_COLD:
                yield f"{load.way}: was not cold, {share:.2f} of the bytes came"


def _slower(row: Row, ranks: int) -> Iterable[str]:
    plain_s = row.seconds(PLAIN, ranks)
    for way in OURS:
        ours_s = row.seconds(way, ranks)
        if plain_s and ours_s and ours_s > MOST_TIME_RATIO * plain_s + MOST_TIME_S:
            yield f"{way}: {ours_s:.1f} s, plain {plain_s:.1f} s"


def _more_bytes(row: Row, ranks: int) -> Iterable[str]:
    plain_bytes = row.served_bytes(PLAIN, ranks)
    for way in OURS:
        ours_bytes = row.served_bytes(way, ranks)
        if plain_bytes and ours_bytes and ours_bytes > MOST_BYTES_RATIO * plain_bytes:
            yield f"{way}: {ours_bytes / plain_bytes:.2f} times the bytes of plain"


def _read_again(row: Row, ranks: int, setting: Setting) -> Iterable[str]:
    """`warm` said that all is there, and the load after it read it again."""
    for warm, after in zip(row.of(WARM, ranks), row.of(AFTER_WARM, ranks), strict=False):
        share = after.served_bytes / setting.checkpoint_bytes
        if warm.exit_status == 0 and warm.complete and share > MOST_READ_AGAIN:
            yield f"warm said complete, {share:.2f} of the bytes were read again"


def table(rows: Sequence[Row], setting: Setting, *, by_clock: bool = True) -> str:
    """Markdown: medians. In parentheses the ratio to plain of the time, and of the bytes."""
    lines = [
        "| mount | type | ranks | plain: s, bytes | iterators | prefetching | warm: exit, said, s "
        "| load after: s, read | rules broken |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for ranks in row.ranks():
            rules = broken_rules(row, setting, by_clock=by_clock)
            ending = f", by {ranks}"
            own = [line.removesuffix(ending) for line in rules if line.endswith(ending)]
            cells = (
                row.name,
                str(row.mount.get("type", "")),
                str(ranks),
                _plain_cell(row, ranks, setting),
                *(_cell(row, way, ranks) for way in OURS),
                _warm_cell(row, ranks),
                _after_cell(row, ranks, setting),
                "; ".join(own),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _plain_cell(row: Row, ranks: int, setting: Setting) -> str:
    seconds, served = row.seconds(PLAIN, ranks), row.served_bytes(PLAIN, ranks)
    if seconds is None or served is None:
        return "no end" if row.of(PLAIN, ranks) else ""
    return f"{seconds:.2f}, {served / setting.checkpoint_bytes:.2f}"


def _cell(row: Row, way: str, ranks: int) -> str:
    seconds, served = row.seconds(way, ranks), row.served_bytes(way, ranks)
    if seconds is None or served is None:
        return "no end" if row.of(way, ranks) else ""
    plain_s, plain_bytes = row.seconds(PLAIN, ranks), row.served_bytes(PLAIN, ranks)
    if not plain_s or not plain_bytes:
        return f"{seconds:.2f}"
    return f"{seconds:.2f} ({seconds / plain_s:.2f}; {served / plain_bytes:.2f})"


def _warm_cell(row: Row, ranks: int) -> str:
    loads = row.of(WARM, ranks)
    if not loads:
        return ""
    said = {None: "nothing", True: "complete", False: "incomplete"}[loads[-1].complete]
    seconds = row.seconds(WARM, ranks)
    return f"{loads[-1].exit_status}, {said}" + (f", {seconds:.2f}" if seconds is not None else "")


def _after_cell(row: Row, ranks: int, setting: Setting) -> str:
    seconds, served = row.seconds(AFTER_WARM, ranks), row.served_bytes(AFTER_WARM, ranks)
    if seconds is None or served is None:
        return "no end" if row.of(AFTER_WARM, ranks) else ""
    return f"{seconds:.2f}, {served / setting.checkpoint_bytes:.2f}"
