"""What limits this process besides storage and memory: seccomp, descriptors, processes, the folder
of the board.

Reads a few small files of /proc and /sys, and changes nothing; any thread.
"""

from __future__ import annotations

import os
import platform
import pwd
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardahead.environment import unread_variables

UNSEEN_OWNER = "nobody or someone whom this user namespace does not show"
_SECCOMP_MODES = {"0": "none", "1": "strict", "2": "filter"}


@dataclass(frozen=True)
class PidsLimit:
    """How many processes and threads the tightest cgroup allows; `source` is its folder."""

    source: str
    limit: int
    used: int


@dataclass(frozen=True)
class Limits:
    """The limits in force. None: no limit, or not known.

    `seccomp` is "none", "strict", "filter" or "unknown"; `open_files` and `processes` are the soft
    limits of this process (RLIMIT_NOFILE, RLIMIT_NPROC); `board_free_bytes` is what the filesystem
    of `board_folder` has left. `unread_variables` look like ours, and nothing reads them.
    """

    kernel: str
    user: str
    seccomp: str
    open_files: int | None
    processes: int | None
    pids: PidsLimit | None
    board_folder: str
    board_writable: bool
    board_free_bytes: int | None
    disabled: bool
    unread_variables: tuple[str, ...] = ()


def current_limits(board_folder: str, disabled: bool) -> Limits:
    """Those of this process, now. Never raises for what cannot be read."""
    return Limits(
        kernel=platform.release(),
        user=user_name(os.geteuid()),
        seccomp=seccomp_mode(_text("/proc/self/status")),
        open_files=_soft_limit(resource.RLIMIT_NOFILE),
        processes=_soft_limit(resource.RLIMIT_NPROC),
        pids=pids_limit(Path("/")),
        board_folder=board_folder,
        board_writable=os.path.isdir(board_folder) and os.access(board_folder, os.W_OK | os.X_OK),
        board_free_bytes=_free_bytes(board_folder),
        disabled=disabled,
        unread_variables=tuple(unread_variables(os.environ)),
    )


def user_name(uid: int) -> str:
    """The name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def owner_name(uid: int, root: Path) -> str:
    """As user_name(), of who owns a file; `root` stands before every path. A user namespace shows
    all owners from outside it as one uid, whose name says nothing.
    """
    shows_all = _text(root / "proc/self/uid_map").split() == ["0", "0", "4294967295"]
    overflow_uid = _text(root / "proc/sys/kernel/overflowuid").strip()
    return UNSEEN_OWNER if str(uid) == overflow_uid and not shows_all else user_name(uid)


def seccomp_mode(status: str) -> str:
    """From the contents of /proc/self/status."""
    for line in status.splitlines():
        if line.startswith("Seccomp:"):
            return _SECCOMP_MODES.get(line.split(":")[1].strip(), "unknown")
    return "unknown"


def pids_limit(root: Path) -> PidsLimit | None:
    """The cgroup above this process that has the fewest left; `root` stands before every path."""
    tightest: PidsLimit | None = None
    for folder in _pids_folders(_text(root / "proc/self/cgroup")):
        limit, used = (_text(root / folder[1:] / f"pids.{name}") for name in ("max", "current"))
        if not limit.strip().isdigit() or not used.strip().isdigit():
            continue
        found = PidsLimit(folder, int(limit), int(used))
        if tightest is None or found.limit - found.used < tightest.limit - tightest.used:
            tightest = found
    return tightest


def _pids_folders(self_cgroup: str) -> Iterator[str]:
    """Where cgroups are mounted by convention; what is not there is passed over."""
    for line in self_cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:
            parts = []
        mounted = ["pids"] if controllers else ["", "unified"]
        for name in mounted:
            for depth in range(len(parts), -1, -1):
                yield "/".join(filter(None, ["/sys/fs/cgroup", name, *parts[:depth]]))


def _soft_limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _free_bytes(folder: str) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="surrogateescape")
    except OSError:
        return ""
