"""Starts and stops a slowfs mount and talks to it, for tests and benchmarks.

Standard library only. Measures nothing itself: the figures come from the server's counters. One
thread per SlowFs object.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 10.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.01

PathLike = str | os.PathLike[str]


class SlowFsError(RuntimeError):
    """The mount could not be made; the text is what the server said."""


@dataclass(frozen=True)
class Counters:
    """What the server did since the last reset, then its configuration."""

    bytes_served: int
    requests: int
    failed_requests: int
    seeks: int
    in_flight: int
    peak_in_flight: int
    seconds_since_reset: float
    rate_mb_per_s: float
    round_trip_ms: float
    request_kib: int
    readahead_kib: int
    max_background: int
    congestion_threshold: int
    keep_cache: bool
    direct_io: bool


def find_binary() -> Path | None:
    """SHARDAHEAD_SLOWFS if set, else the newest one below build/, else the one on PATH."""
    if named := os.environ.get("SHARDAHEAD_SLOWFS"):
        return Path(named) if os.access(named, os.X_OK) else None
    built = [
        path
        for path in (REPOSITORY / "build").glob("**/slowfs")
        if path.is_file() and os.access(path, os.X_OK)
    ]
    if built:
        return max(built, key=lambda path: path.stat().st_mtime)
    on_path = shutil.which("slowfs")
    return Path(on_path) if on_path else None


@functools.cache
def unavailable_reason() -> str | None:
    """Why nothing can be mounted here, or None. Finds out by mounting an empty folder once."""
    if find_binary() is None:
        return "no slowfs binary (build it, or set SHARDAHEAD_SLOWFS)"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "not root, and no fusermount3"
    with tempfile.TemporaryDirectory(prefix="slowfs-") as folder:
        source, mountpoint = Path(folder, "source"), Path(folder, "mount")
        source.mkdir()
        mountpoint.mkdir()
        try:
            with SlowFs(source, mountpoint):
                return None
        except SlowFsError as error:
            return str(error)


class SlowFs:
    """A mount that lives as long as the with-block."""

    def __init__(
        self,
        source: PathLike,
        mountpoint: PathLike,
        *,
        rate_mb_per_s: float = 300,
        link: PathLike | None = None,
        round_trip_ms: float = 1,
        metadata_round_trip_ms: float = 0,
        seek_ms: float = 0,
        close_ms: float = 0,
        empty_after_close_ms: float | None = None,
        request_kib: int = 1024,
        readahead_kib: int = 128,
        max_background: int = 64,
        congestion_threshold: int | None = None,
        keep_cache: bool = True,
        direct_io: bool = False,
        same_inodes: int | None = None,
        subtype: str = "slowfs",
    ) -> None:
        self.source = Path(source).resolve()
        self.mountpoint = Path(mountpoint).resolve()
        self._options = [
            f"--rate-mb-per-s={rate_mb_per_s}",
            f"--round-trip-ms={round_trip_ms}",
            f"--metadata-round-trip-ms={metadata_round_trip_ms}",
            f"--seek-ms={seek_ms}",
            f"--close-ms={close_ms}",
            f"--request-kib={request_kib}",
            f"--readahead-kib={readahead_kib}",
            f"--max-background={max_background}",
            "--keep-cache" if keep_cache else "--no-keep-cache",
            f"--subtype={subtype}",
        ]
        if empty_after_close_ms is not None:
            self._options.append(f"--empty-after-close-ms={empty_after_close_ms}")
        if link is not None:
            self._options.append(f"--link={link}")
        if congestion_threshold is not None:
            self._options.append(f"--congestion-threshold={congestion_threshold}")
        if direct_io:
            self._options.append("--direct-io")
        if same_inodes is not None:
            self._options.append(f"--same-inodes={same_inodes}")
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SlowFs:
        binary = find_binary()
        if binary is None:
            raise SlowFsError("no slowfs binary (build it, or set SHARDAHEAD_SLOWFS)")
        if os.path.ismount(self.mountpoint):
            raise SlowFsError(f"{self.mountpoint}: something is mounted there already")
        command = [str(binary), "--foreground", *self._options]
        with tempfile.TemporaryFile() as messages:
            # A session of its own: Ctrl-C ends the benchmark, and that ends the server in order.
            self._server = subprocess.Popen(
                [*command, str(self.source), str(self.mountpoint)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                start_new_session=True,
            )
            try:
                self._wait_until_ready(self._server)
            except BaseException as error:
                self.close()
                messages.seek(0)
                said = messages.read().decode(errors="replace").strip()
                if isinstance(error, SlowFsError):
                    raise SlowFsError(said or str(error)) from None
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmounts, whoever still uses the mount. Safe to call twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if os.path.ismount(self.mountpoint) or _is_dead(self.mountpoint):
            self._unmount_lazily()

    def counters(self) -> Counters:
        return Counters(**json.loads(self._control_file("counters").read_bytes()))

    def command(self, line: str) -> None:
        """Anything that .slowfs/control takes; OSError (EINVAL) for what it does not."""
        fd = os.open(self._control_file("control"), os.O_WRONLY)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)

    def reset(self) -> None:
        """Sets the counters to zero."""
        self.command("reset")

    def eio(self, path: PathLike, offset: int) -> None:
        """Every READ that touches bytes at or past `offset` fails."""
        self.command(f"eio {self._relative(path)} {offset}")

    def bad(self, path: PathLike, offset: int, n_bytes: int) -> None:
        """Every READ that touches one of the `n_bytes` from `offset` on fails."""
        self.command(f"bad {self._relative(path)} {offset} {n_bytes}")

    def stall(self, path: PathLike, offset: int, seconds: float) -> None:
        """Every READ that touches bytes at or past `offset` is answered `seconds` late."""
        self.command(f"stall {self._relative(path)} {offset} {seconds}")

    def truncate(self, path: PathLike, n_bytes: int) -> None:
        """From now on the server's file ends at `n_bytes`; the kernel is not told."""
        self.command(f"truncate {self._relative(path)} {n_bytes}")

    def clear(self) -> None:
        """Ends all faults."""
        self.command("clear")

    def wait_until_idle(self, wait_seconds: float = 60) -> None:
        """Waits until no READ is in flight and the byte counter stands still."""
        deadline = time.monotonic() + wait_seconds
        before = self.counters()
        while time.monotonic() < deadline:
            time.sleep(2 * POLL_SECONDS)
            now = self.counters()
            if now.in_flight == 0 and now.bytes_served == before.bytes_served:
                return
            before = now
        raise TimeoutError(f"{self.mountpoint}: READs still in flight after {wait_seconds} s")

    def drop(self, *paths: PathLike) -> None:
        """Drops these files from the page cache, except for pages that someone still maps.

        Without keep_cache the open() in here would do that alone.
        """
        # Pages whose reads are in flight are locked, and would stay.
        self.wait_until_idle()
        for path in paths:
            fd = os.open(self.mountpoint / self._relative(path), os.O_RDONLY)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)

    def evict_all(self) -> None:
        """Drops every file of the mount."""
        self.drop(*self._files())

    def _files(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.mountpoint):
            for name in names:
                path = Path(folder, name)
                if not path.is_symlink() and path.is_file():
                    yield path

    def _control_file(self, name: str) -> Path:
        return self.mountpoint / ".slowfs" / name

    def _relative(self, path: PathLike) -> str:
        path = Path(path)
        return str(path.relative_to(self.mountpoint) if path.is_absolute() else path)

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise SlowFsError(f"slowfs ended with exit status {server.returncode}")
            try:
                self.counters()
                return
            except OSError:
                time.sleep(POLL_SECONDS)
        raise SlowFsError(f"{self.mountpoint}: not mounted after {START_SECONDS} s")

    def _unmount_lazily(self) -> None:
        for command in (["umount", "-l"], ["fusermount3", "-u", "-z"]):
            if shutil.which(command[0]) is None:
                continue
            done = subprocess.run(
                [*command, str(self.mountpoint)], capture_output=True, check=False
            )
            if done.returncode == 0:
                return


def _is_dead(mountpoint: Path) -> bool:
    """Whether a mount is left whose server is gone: then even stat fails."""
    try:
        os.stat(mountpoint)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
