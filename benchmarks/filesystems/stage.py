"""The place in which one filesystem is brought up: processes, mounts, a wire or a slow filesystem.

Lives in net, pid and mount namespaces of its own (row.py is started there): when they end, all that
is here is gone. Programs of packages run in the root that packages.py has unpacked; slowfs and the
ranks are this machine's own. One thread.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delayed_wire import DEVICE, SERVER
from slowfs import SlowFs

HERE = Path(__file__).resolve().parent
# As the programs in the root see them.
DATA, WORK, SLOW, AT = "/mnt/data", "/mnt/work", "/mnt/slow", "/mnt/at"
UP_LIMIT_S = 60.0
DOWN_LIMIT_S = 10.0
_POLL_S = 0.02
_RUN_GUEST = HERE.parent / "guest" / "run-guest"
_GUEST_DEVICE = "vec0"
_STILL_S = 0.25


class NotUpError(RuntimeError):
    """Server or client did not come up; the text is what they said."""


@dataclass(frozen=True)
class Backend:
    """What serves the bytes, and who counts them. `forget` drops what it may keep of the files."""

    counted: str
    served_bytes: Callable[[], int]
    forget: Callable[[], None] = lambda: None

    def served_when_still(self) -> int:
        """Reads in flight end after whoever asked for them."""
        count = self.served_bytes()
        while True:
            time.sleep(_STILL_S)
            before, count = count, self.served_bytes()
            # A wire is never silent: programs keep their connections alive.
            if count - before < 2**14:
                return count


class Stage:
    """`root`: of the packages. `data`: the checkpoint. `work`: an empty folder on a disk."""

    def __init__(
        self, root: Path, data: Path, work: Path, rate_mb_per_s: float, round_trip_ms: float
    ) -> None:
        self.root = root
        self.data = data
        self.work = work
        self.rate_mb_per_s = rate_mb_per_s
        self.round_trip_ms = round_trip_ms
        self.mountpoint = self.outside(AT)
        self._client = 0  # a process in the client's network namespace

    def outside(self, path: str) -> Path:
        """A path of the root, as this machine's programs see it."""
        return self.root / path.lstrip("/")

    def lay_out(self) -> None:
        """The mounts that every program in the root needs."""
        for kind, name in (("proc", "proc"), ("tmpfs", "tmp"), ("tmpfs", "run"), ("tmpfs", "mnt")):
            command("mount", "-t", kind, kind, self.root / name)
        command("ip", "link", "set", "lo", "up")  # ranks look for a port of theirs
        command("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")  # boards end with this run
        for name in ("dev", "sys"):
            command("mount", "--rbind", f"/{name}", self.root / name)
        for name in (DATA, WORK, SLOW, AT):
            self.outside(name).mkdir()
        command("mount", "--bind", self.data, self.outside(DATA))
        command("mount", "--bind", self.work, self.outside(WORK))

    @contextmanager
    def wire(self) -> Iterator[Backend]:
        """The way between server and client; bytes are counted at the client's end of it."""
        with self.started(["unshare", "--net", "sleep", "infinity"], "client") as client:
            wait_until(lambda: _network_of(client.pid) != _network_of(os.getpid()), client)
            self._client = client.pid
            figures = (str(client.pid), str(self.rate_mb_per_s), str(self.round_trip_ms))
            line = [sys.executable, str(HERE / "delayed_wire.py"), *figures]
            with self.started(line, "wire", talks=True) as wire:
                assert wire.stdout is not None
                if not wire.stdout.readline():
                    raise NotUpError(self.said("wire"))
                yield Backend("the wire", self._received_bytes)

    def _received_bytes(self) -> int:
        return received_bytes(Path(f"/proc/{self._client}/net/dev"), DEVICE)

    def tap(self) -> Backend:
        """The way to another kernel, which counts for itself: at_guest()."""
        return Backend("the wire", lambda: 0)

    def run_in_guest(self, modules: Sequence[str], words: Sequence[str]) -> None:
        """A command of this machine's under another kernel; its output goes where ours does."""
        line = [str(_RUN_GUEST), "--here", "--memory-mib", str(self._guest_mib())]
        line += ["--rate-mb-per-s", f"{self.rate_mb_per_s:.0f}"]
        line += ["--round-trip-ms", str(self.round_trip_ms), "--modules", " ".join(modules)]
        with open(self.work.parent / "guest.log", "ab") as log:
            status = subprocess.run([*line, "--", *words], stderr=log, check=False).returncode
        if status:
            raise NotUpError(f"the other kernel ended with status {status}: {self.said('guest')}")

    def _guest_mib(self) -> int:
        """The checkpoint in its page cache, the ranks, and what these copy to."""
        return 3 * (self.data_bytes() >> 20) + 2048

    @contextmanager
    def slow(self, source: Path, **options: Any) -> Iterator[Backend]:
        """The slow filesystem on `source`, at SLOW. Without pages of its own, unless told to."""
        warm(source)
        mount = SlowFs(
            source,
            self.outside(SLOW),
            rate_mb_per_s=self.rate_mb_per_s,
            round_trip_ms=self.round_trip_ms,
            **{"direct_io": True, **options},
        )
        with mount:
            yield Backend("slowfs", lambda: mount.counters().bytes_served, mount.evict_all)

    def run(self, *words: str, told: str = "") -> None:
        """A program in the root, to its end. `told`: on its standard input."""
        command("chroot", self.root, *words, told=told)

    def data_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.data.iterdir())

    def copy_checkpoint_to(self, folder: Path) -> None:
        for path in self.data.iterdir():
            shutil.copyfile(path, folder / path.name)

    @contextmanager
    def server(self, words: Sequence[str], port: int, *, packaged: bool = True) -> Iterator[None]:
        """A program that listens at SERVER; in the root, where it is of a package."""
        warm(self.data)
        line = ["chroot", str(self.root), *words] if packaged else words
        with self.started(line, "server") as server:
            wait_until(lambda: _listens(port), server, lambda: self.said("server"))
            yield

    @contextmanager
    def mounted(self, words: Sequence[str], *, far: bool = False, at: str = AT) -> Iterator[None]:
        """A program in the root that stays in the foreground and mounts something.

        `far`: at the client's end of the wire.
        """
        line = ["chroot", str(self.root), *words]
        if far:
            line = ["nsenter", f"--net=/proc/{self._client}/ns/net", *line]
        point = self.outside(at)
        with ExitStack() as stack:
            client = stack.enter_context(self.started(line, "mount"))
            stack.callback(unmount, point, client)
            wait_until(lambda: is_mounted(point), client, lambda: self.said("mount"))
            yield

    def fresh(self, path: str) -> str:
        """An empty folder in the root."""
        shutil.rmtree(self.outside(path), ignore_errors=True)
        self.outside(path).mkdir(parents=True)
        return path

    def said(self, name: str) -> str:
        """The last words of a program."""
        text = (self.work.parent / f"{name}.log").read_text(errors="replace").strip()
        return text.splitlines()[-1] if text else f"the {name} said nothing"

    @contextmanager
    def started(
        self, line: Sequence[str], name: str, *, talks: bool = False
    ) -> Iterator[subprocess.Popen[bytes]]:
        """What it says goes to a log. `talks`: but its standard output, and it listens."""
        with open(self.work.parent / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                start_new_session=True,  # Samba's ends its whole process group
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(DOWN_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def command(*words: str | Path, told: str = "") -> None:
    """Runs it; raises with its last words where it fails."""
    line = [os.fspath(word) for word in words]
    done = subprocess.run(line, input=told, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotUpError(f"{line[0]}: {said[-1] if said else done.returncode}")


def received_bytes(table: Path, device: str) -> int:
    """By the kernel's table of network devices."""
    for text in table.read_text().splitlines():
        name, _, figures = text.partition(":")
        if name.strip() == device:
            return int(figures.split()[0])
    raise NotUpError(f"no {device} in {table}")


def at_guest() -> Backend:
    """Under the other kernel: what has come over the tap."""
    return Backend("the wire", lambda: received_bytes(Path("/proc/net/dev"), _GUEST_DEVICE))


def warm(folder: Path) -> None:
    """Reads all files, so that the disk below is not what limits."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb", buffering=0) as file:
                while file.read(2**24):
                    pass


def wait_until(
    happened: Callable[[], bool],
    process: subprocess.Popen[bytes],
    said: Callable[[], str] = lambda: "it ended",
) -> None:
    """Raises where the process ends before, or takes too long."""
    deadline = time.monotonic() + UP_LIMIT_S
    while not happened():
        if process.poll() is not None:
            raise NotUpError(said())
        if time.monotonic() > deadline:
            raise NotUpError(f"not up after {UP_LIMIT_S:g} s: {said()}")
        time.sleep(_POLL_S)


def is_mounted(point: Path) -> bool:
    """By the list of mounts: a stat would ask the filesystem, and might wait for it."""
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1] == str(point) for line in mounts)


def unmount(point: Path, client: subprocess.Popen[bytes] | None = None) -> None:
    """Whoever uses it or hangs in it: then the client is killed, and the mount let go."""
    deadline = time.monotonic() + DOWN_LIMIT_S
    while is_mounted(point):
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["umount", point], capture_output=True, timeout=DOWN_LIMIT_S, check=False
            )
        if time.monotonic() > deadline:
            if client is not None:
                client.kill()
            subprocess.run(["umount", "-l", point], capture_output=True, check=False)
            return
        if is_mounted(point):
            time.sleep(_POLL_S)


def _network_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex((SERVER, port)) == 0
