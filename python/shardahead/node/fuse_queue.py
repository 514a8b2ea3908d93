"""The queue of a FUSE mount: how many requests the kernel lets be in flight in the background.

Reads files of /sys/fs/fuse/connections, which only root and the mount's owner may read, and changes
nothing; any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shardahead.node.mounts import Mount

_CONNECTIONS = "/sys/fs/fuse/connections"


@dataclass(frozen=True)
class FuseQueue:
    """`max_background` is how many background requests, as readahead makes them, may be in flight;
    beyond `congestion_threshold` of them the kernel drops readahead. None where they cannot be
    read: `reason` says why. `path` is the folder of both, and of how many requests are waiting.
    """

    path: str
    max_background: int | None = None
    congestion_threshold: int | None = None
    reason: str = ""


def fuse_queue(mount: Mount, root: Path = Path("/")) -> FuseQueue | None:
    """That of the mount; None where it is not one of FUSE. `root` stands before every path."""
    if not mount.type.startswith("fuse"):
        return None
    major, _, minor = mount.device.partition(":")
    # By the kernel's own device number, which for mounts without a device is the minor one.
    path = f"{_CONNECTIONS}/{int(major) << 20 | int(minor)}"
    folder = root / path[1:]
    try:
        most, threshold = (
            int((folder / name).read_text()) for name in ("max_background", "congestion_threshold")
        )
    except PermissionError:
        return FuseQueue(path, reason="only root and the user who mounted it may read it")
    except FileNotFoundError:
        return FuseQueue(path, reason=_why_absent(folder.parent))
    except (OSError, ValueError) as error:
        return FuseQueue(path, reason=getattr(error, "strerror", None) or "not a number")
    return FuseQueue(path, most, threshold)


def _why_absent(connections: Path) -> str:
    """An empty folder is what the kernel has where nothing is mounted on it."""
    try:
        mounted = any(connections.iterdir())
    except OSError:
        mounted = False
    if mounted:
        return "not among the connections that are seen from here"
    return f"nothing is mounted on {_CONNECTIONS}; as root: mount -t fusectl fusectl {_CONNECTIONS}"


def waiting_requests(queue: FuseQueue | None, root: Path = Path("/")) -> Callable[[], int | None]:
    """A function that tells how many requests of the mount are in flight or wait to be, of all
    processes; None where that cannot be read.
    """
    path = root / queue.path[1:] / "waiting" if queue and queue.max_background else None

    def ask() -> int | None:
        if path is None:
            return None
        try:
            return int(path.read_text())
        except (OSError, ValueError):
            return None

    return ask
