"""The cells of the NFS matrix, what is recorded of a load, and the table. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

KIB = 1024


@dataclass(frozen=True)
class Mount:
    """How the client mounts the server: the protocol's version and the size of a READ."""

    version: str
    rsize_kib: int

    @property
    def options(self) -> str:
        return f"rsize={self.rsize_kib * KIB}"


@dataclass(frozen=True)
class Conditions:
    """What is set while it is mounted."""

    round_trip_ms: float
    read_ahead_kib: int


@dataclass(frozen=True)
class Load:
    """One cold load by all ranks. `problem` says what was wrong, or is empty."""

    mount: Mount
    conditions: Conditions
    method: str
    seconds: float
    wire_bytes: int
    problem: str = ""


@dataclass(frozen=True)
class Setting:
    """What every cell has in common."""

    file_bytes: int
    rate_mb_per_s: float
    ranks: int

    def share_of_link(self, seconds: float) -> float:
        """The bytes of the files in that time, as a share of what the link can carry."""
        return self.file_bytes / seconds / (self.rate_mb_per_s * 1e6)


MOUNTS = tuple(Mount(version, rsize) for version, rsize in product(("3", "4.2"), (256, 1024)))
CONDITIONS = tuple(
    Conditions(round_trip, read_ahead)
    for read_ahead, round_trip in product((128, 15 * KIB), (0, 2, 10, 20))
)
# READ replies carry headers; the client may read a few pages of what it has lost again.
MOST_WIRE_RATIO = 1.01


def wrong_bytes(loads: Iterable[Load], setting: Setting) -> list[str]:
    """A line for each load that failed or read the files more than once over the wire."""
    lines = []
    for load in loads:
        ratio = load.wire_bytes / setting.file_bytes
        problem = load.problem
        if not problem and load.method == "shardahead" and ratio > MOST_WIRE_RATIO:
            problem = f"{ratio:.3f} times the bytes on the wire"
        if problem:
            lines.append(f"{_cell(load)}, {load.method}: {problem}")
    return lines


def slow_cells(loads: Sequence[Load], setting: Setting, least_share: float) -> list[str]:
    """A line for each cell whose median share of the link is less."""
    lines = []
    for cell, seconds in _by_cell(loads, "shardahead").items():
        share = setting.share_of_link(median(seconds))
        if share < least_share:
            lines.append(f"{cell}: {share:.3f} of the link")
    return lines


def table(loads: Sequence[Load], setting: Setting) -> str:
    """Markdown, a row per cell: medians, in parentheses the least and the most."""
    plain = _by_cell(loads, "plain")
    wires = _wires_by_cell(loads)
    rows = [
        "| version | rsize | readahead | round trip | share of the link | bytes | plain loop |",
        "|---|---|---|---|---|---|---|",
    ]
    for load in _first_of_each_cell(loads):
        seconds = _by_cell(loads, "shardahead")[_cell(load)]
        shares = [setting.share_of_link(one) for one in seconds]
        spread = f" ({min(shares):.2f}-{max(shares):.2f})" if len(shares) > 1 else ""
        beside = plain.get(_cell(load))
        cells = (
            load.mount.version,
            size_text(load.mount.rsize_kib),
            size_text(load.conditions.read_ahead_kib),
            f"{load.conditions.round_trip_ms:g} ms",
            f"{median(shares):.2f}{spread}",
            f"{max(wires[_cell(load)]) / setting.file_bytes:.3f}",
            f"{setting.share_of_link(median(beside)):.2f}" if beside else "",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def size_text(kib: int) -> str:
    return f"{kib // KIB} MiB" if kib % KIB == 0 else f"{kib} KiB"


def _cell(load: Load) -> str:
    mount, conditions = load.mount, load.conditions
    return (
        f"version {mount.version}, rsize {size_text(mount.rsize_kib)}, "
        f"readahead {size_text(conditions.read_ahead_kib)}, {conditions.round_trip_ms:g} ms"
    )


def _first_of_each_cell(loads: Iterable[Load]) -> Iterable[Load]:
    return {_cell(load): load for load in loads if not load.problem}.values()


def _by_cell(loads: Iterable[Load], method: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for load in loads:
        if load.method == method and not load.problem:
            found.setdefault(_cell(load), []).append(load.seconds)
    return found


def _wires_by_cell(loads: Iterable[Load]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for load in loads:
        if load.method == "shardahead" and not load.problem:
            found.setdefault(_cell(load), []).append(load.wire_bytes)
    return found
