"""What a run of the cluster's test bed came to: the limit, medians, the table. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

GIB = 2**30


@dataclass(frozen=True)
class Setting:
    """What all runs have in common. A rate of 0: no limit."""

    nodes: int
    size_bytes: int
    storage_mb_per_s: float
    storage_shared: bool
    node_link_mb_per_s: float
    round_trip_ms: float
    readahead_kib: int
    rounds: int
    fault: str
    fault_node: int

    @property
    def limit_seconds(self) -> float:
        """What nobody can do without: the checkpoint leaves the storage once, and each node takes
        in what the others have read. Without the start of a process.
        """
        links = 1 if self.storage_shared else self.nodes
        storage = _seconds(self.size_bytes / links, self.storage_mb_per_s)
        from_others = self.size_bytes * (self.nodes - 1) / self.nodes
        return max(storage, _seconds(from_others, self.node_link_mb_per_s))

    @property
    def title(self) -> str:
        whose = "for all" if self.storage_shared else "for each node"
        link = f"{self.node_link_mb_per_s:g} MB/s each way"
        fault = "" if self.fault == "none" else f"; node {self.fault_node}: {self.fault}"
        return (
            f"{self.nodes} nodes, {self.size_bytes / GIB:.2f} GiB, storage "
            f"{self.storage_mb_per_s:g} MB/s {whose}, links {link}: "
            f"limit {self.limit_seconds:.2f} s{fault}"
        )


@dataclass(frozen=True)
class Run:
    """One cold start of all nodes by one method. seconds: from the start of the first process until
    the last node is whole, of those that are to be; first_byte_seconds: from the first byte that
    the storage has served until then. Both None where it came to nothing, and `problem` says why.
    wrong: which bytes are not those of the source. into_bytes, out_bytes: of each node's link.
    """

    method: str
    seconds: float | None = None
    first_byte_seconds: float | None = None
    served_bytes: int = 0
    into_bytes: tuple[int, ...] = ()
    out_bytes: tuple[int, ...] = ()
    node_processor_seconds: float = 0.0
    storage_processor_seconds: float = 0.0
    problem: str = ""
    wrong: str = ""


#: Of a table's row: its head, and what it says of a run that has a time.
_FIGURES: tuple[tuple[str, Callable[[Run, Setting], float], int], ...] = (
    ("seconds", lambda run, _: run.seconds or 0.0, 1),
    ("of the limit", lambda run, its: (run.seconds or 0.0) / its.limit_seconds, 2),
    ("from the first byte", lambda run, _: run.first_byte_seconds or 0.0, 1),
    (
        "of the limit",
        lambda run, its: (run.first_byte_seconds or 0.0) / its.limit_seconds,
        2,
    ),
    ("storage served", lambda run, its: run.served_bytes / its.size_bytes, 3),
    ("into a link", lambda run, its: max(run.into_bytes, default=0) / its.size_bytes, 2),
    ("out of a link", lambda run, its: max(run.out_bytes, default=0) / its.size_bytes, 2),
    ("processor s of nodes", lambda run, _: run.node_processor_seconds, 1),
    ("of the storage", lambda run, _: run.storage_processor_seconds, 1),
)


def table(runs: Sequence[Run], setting: Setting, left_out: dict[str, str]) -> str:
    """Markdown, a row a method: medians, in parentheses the least and the most. `left_out`: methods
    without a run, and why.
    """
    heads = ["method", *(head for head, _, _ in _FIGURES)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == method]
        timed = [run for run in mine if run.seconds is not None and not run.wrong]
        if timed:
            cells = [
                spread([figure(run, setting) for run in timed], digits)
                for _, figure, digits in _FIGURES
            ]
        else:
            cells = ["failed", *[""] * (len(_FIGURES) - 1)]
        failed = len(mine) - len(timed)
        name = f"{method}, {failed} of {len(mine)} without a time" if failed and timed else method
        lines.append(f"| {' | '.join([name, *cells])} |")
    for method, reason in left_out.items():
        lines.append(f"| {method} | not measured: {reason} |" + " |" * (len(_FIGURES) - 1))
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    """The median; of several values that differ also the least and the most."""
    least, middle, most = (
        f"{each:.{digits}f}" for each in (min(values), median(values), max(values))
    )
    return middle if least == most else f"{middle} ({least}-{most})"


def problems(runs: Iterable[Run]) -> list[str]:
    """What must be said of runs beside the table, each once."""
    found = [f"{run.method}: {run.problem}" for run in runs if run.problem]
    return list(dict.fromkeys(found))


def wrong_bytes(runs: Iterable[Run]) -> list[str]:
    """What must never be."""
    return [f"{run.method}: wrong bytes: {run.wrong}" for run in runs if run.wrong]


def own_failures(runs: Iterable[Run], own: Sequence[str]) -> list[str]:
    """Of the methods that are to bring whole nodes whatever happens."""
    return [
        f"{run.method}: came to nothing"
        for run in runs
        if run.method in own and run.seconds is None
    ]


def needed_bytes(nodes: int, size_bytes: int, process_bytes: int) -> int:
    """Memory that is not given back while a run lasts: the source and a replica a node, and the
    processes. What the mounts keep of the source is given back to whoever needs it.
    """
    return (nodes + 1) * size_bytes + nodes * process_bytes


def link_bytes_of_burst(rate_mb_per_s: float) -> tuple[int, int]:
    """Of tbf: how much may go at once, and how much waits before some of it is dropped."""
    bytes_per_s = rate_mb_per_s * 1e6
    return max(256 << 10, int(bytes_per_s * 0.002)), max(1 << 20, int(bytes_per_s * 0.02))


def _seconds(size_bytes: float, rate_mb_per_s: float) -> float:
    return size_bytes / (rate_mb_per_s * 1e6) if rate_mb_per_s else 0.0
