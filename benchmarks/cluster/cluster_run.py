"""One cold start of all nodes by one method: mounts without a page, empty folders, a process a
node, the fault, and what came of it. One thread, which looks at all of them in turn.
"""

from __future__ import annotations

import argparse
import mmap
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from cluster_figures import Run
from cluster_memory import Ballast
from cluster_methods import NAME, Method, Place
from cluster_network import Network
from slowfs import SlowFs

_LOOK_SECONDS = 0.01
_LATE_SECONDS = 3.0
_END_SECONDS = 30.0  # of a process whose node is whole


class RunError(Exception):
    """It came to nothing; the text says why."""


class Bed:
    """Where runs take place: `folder` is a tmpfs, with the checkpoint in `source`/NAME."""

    def __init__(self, options: argparse.Namespace, folder: Path, network: Network) -> None:
        self.options = options
        self.folder = folder
        self.network = network
        self.source = folder / "source"
        self._digests = digests_of(self.source / NAME)
        self.size_bytes = sum(path.stat().st_size for path in files_of(self.source / NAME))
        self.ballast = Ballast(folder, 2 * options.nodes * self.size_bytes)

    def run(self, method: Method) -> Run:
        """Takes down whatever it began."""
        scratch = self.folder / "run"
        scratch.mkdir()
        try:
            return self._run(method, scratch)
        finally:
            reap()
            shutil.rmtree(scratch)

    def _run(self, method: Method, scratch: Path) -> Run:
        nodes = range(self.options.nodes)
        place = Place(
            nodes=self.options.nodes,
            mounts=tuple(scratch / f"mount-{node}" for node in nodes),
            locals=tuple(scratch / f"local-{node}" for node in nodes),
            first_address=self.network.address(0),
            scratch=scratch,
        )
        for folder in (*place.mounts, *place.locals, scratch / "home"):
            folder.mkdir()
        self.ballast.load()
        started = processor_seconds()
        with ExitStack() as mounted:
            mounts = [mounted.enter_context(self._mount(point, scratch)) for point in place.mounts]
            up = processor_seconds()
            start = Start(self, method, place, mounts)
            problem = start.to_the_end()
            reap()
            of_nodes = processor_seconds() - up
        of_storage = processor_seconds() - started - of_nodes
        wrong = "" if problem else self._wrong(place, start.expected)
        return Run(
            method.name,
            seconds=None if problem else start.seconds,
            first_byte_seconds=None if problem else start.first_byte_seconds,
            served_bytes=start.moved.served,
            into_bytes=start.moved.into,
            out_bytes=start.moved.out,
            node_processor_seconds=of_nodes,
            storage_processor_seconds=of_storage,
            problem=problem,
            wrong=wrong,
        )

    def _mount(self, point: Path, scratch: Path) -> SlowFs:
        return SlowFs(
            self.source,
            point,
            rate_mb_per_s=self.options.storage_mb_per_s,
            round_trip_ms=self.options.round_trip_ms,
            readahead_kib=self.options.readahead_kib,
            link=None if self.options.storage_not_shared else scratch / "link",
        )

    def _wrong(self, place: Place, expected: Sequence[int]) -> str:
        for node in expected:
            found = digests_of(place.locals[node] / NAME)
            for name, digest in self._digests.items():
                if found.get(name) != digest:
                    return f"{name} of node {node}"
        return ""


@dataclass(frozen=True)
class Moved:
    """Bytes that the storage has served, and that went into each node and out of it."""

    served: int
    into: tuple[int, ...]
    out: tuple[int, ...]


class Start:
    """The processes of one run, from the first one's start to the last one's end."""

    def __init__(self, bed: Bed, method: Method, place: Place, mounts: Sequence[SlowFs]) -> None:
        self._options = bed.options
        self._network = bed.network
        self._method = method
        self._place = place
        self._mounts = mounts
        self._fault = bed.options.fault
        self._victim: int = bed.options.fault_node
        self._fault_bytes = bed.size_bytes // 4
        self._ballast = bed.ballast
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._whole: dict[int, float] = {}
        self._begun = 0.0
        self._carried_before = [self._network.carried(node) for node in range(place.nodes)]
        self._first_byte: float | None = None
        self._stopped = False
        #: Until all were whole that were waited for, or until nothing came of it.
        self.moved = Moved(0, (), ())
        #: The nodes that are to be whole in the end.
        self.expected = [
            node for node in range(place.nodes) if self._fault != "kill" or node != self._victim
        ]

    @property
    def seconds(self) -> float:
        return max(self._waited_for().values()) - self._begun

    @property
    def first_byte_seconds(self) -> float | None:
        if self._first_byte is None:
            return None
        return max(self._waited_for().values()) - self._first_byte

    def _waited_for(self) -> dict[int, float]:
        """When they were whole. A node that stands still is waited for by nobody."""
        left_out = self._victim if self._fault in ("kill", "stop") else None
        return {node: when for node, when in self._whole.items() if node != left_out}

    def to_the_end(self) -> str:
        """What went wrong, or nothing."""
        self._begun = time.monotonic()
        server: subprocess.Popen[bytes] | None = None
        try:
            if self._method.server is not None:
                server = self._started(0, self._method.server(self._place), "server")
            try:
                self._until_whole(self._begun + self._options.give_up_seconds)
            finally:
                self.moved = self._moved()
            self._go_on()
            self._until_ended(time.monotonic() + _END_SECONDS)
        except RunError as error:
            return str(error)
        finally:
            for process in [*self._processes.values(), *([server] if server else [])]:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return ""

    def _moved(self) -> Moved:
        now = [self._network.carried(node) for node in range(self._place.nodes)]
        both = list(zip(self._carried_before, now, strict=True))
        return Moved(
            served=sum(mount.counters().bytes_served for mount in self._mounts),
            into=tuple(after[0] - before[0] for before, after in both),
            out=tuple(after[1] - before[1] for before, after in both),
        )

    def _until_whole(self, deadline: float) -> None:
        needed = set(self.expected)
        if self._fault == "stop":
            needed.discard(self._victim)
        while not needed <= self._whole.keys():
            now = time.monotonic()
            if now > deadline:
                missing = ", ".join(map(str, sorted(needed - self._whole.keys())))
                raise RunError(f"given up: not whole: node {missing}")
            self._start_those_due(now)
            self._look(now)
            self._strike()
            self._ballast.yield_to_run()
            time.sleep(_LOOK_SECONDS)

    def _start_those_due(self, now: float) -> None:
        for node in range(self._place.nodes):
            if node in self._processes:
                continue
            if self._method.first and node != 0 and 0 not in self._whole:
                continue
            late = self._fault == "late" and node == self._victim
            if late and now < self._begun + _LATE_SECONDS:
                continue
            words = self._method.command(self._place, node)
            self._processes[node] = self._started(node, words, f"node-{node}")

    def _look(self, now: float) -> None:
        if self._first_byte is None and any(m.counters().bytes_served for m in self._mounts):
            self._first_byte = now
        for node, process in self._processes.items():
            if node in self._whole:
                continue
            ended = process.poll() is not None
            if (self._place.locals[node] / NAME).is_dir():
                self._whole[node] = now
            elif ended and node in self.expected:
                raise RunError(f"node {node} ended: {self._said(node)}")

    def _strike(self) -> None:
        """Once the victim has a quarter of the checkpoint."""
        if self._fault not in ("kill", "stop") or self._stopped:
            return
        process = self._processes.get(self._victim)
        if process is None or bytes_below(self._place.locals[self._victim]) < self._fault_bytes:
            return
        number = signal.SIGKILL if self._fault == "kill" else signal.SIGSTOP
        os.killpg(process.pid, number)
        self._stopped = True

    def _go_on(self) -> None:
        """Who was stopped is to be whole all the same, in its own time."""
        if self._fault == "stop" and self._stopped:
            os.killpg(self._processes[self._victim].pid, signal.SIGCONT)

    def _until_ended(self, deadline: float) -> None:
        for node, process in self._processes.items():
            if node not in self.expected:
                continue
            try:
                status = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise RunError(f"node {node} does not end") from None
            if status:
                raise RunError(f"node {node} ended with {status}: {self._said(node)}")

    def _started(self, node: int, words: Sequence[str], name: str) -> subprocess.Popen[bytes]:
        with open(self._place.scratch / f"{name}.log", "wb") as log:
            return subprocess.Popen(
                [*self._network.inside(node), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,  # the fault is for all that is of the node
            )

    def _environment(self) -> dict[str, str]:
        home = str(self._place.scratch / "home")
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "HOME": home, "SHARDAHEAD_SECRET": "a secret of the test bed"}

    def _said(self, node: int) -> str:
        text = (self._place.scratch / f"node-{node}.log").read_text(errors="replace").strip()
        return text.splitlines()[-1][:300] if text else "it said nothing"


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def digests_of(folder: Path) -> dict[str, str]:
    """Of every file, by its name below the folder."""
    return {str(path.relative_to(folder)): _digest(path) for path in files_of(folder)}


def _digest(path: Path) -> str:
    if path.stat().st_size == 0:
        return ""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        return xxhash.xxh3_128_hexdigest(content)


def bytes_below(folder: Path) -> int:
    """That lie in memory or on disk by now, of files that are being made."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def processor_seconds() -> float:
    """Of all processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def reap() -> None:
    """Whoever has lost its parent: this is the first process of its namespace."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
