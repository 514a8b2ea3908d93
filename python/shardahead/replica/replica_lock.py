"""Who makes a replica: one process of the node, for as long as it lives. A lock of the kernel's on
a file beside the replica, which ends with the process that holds it, however that ends; a forked
child does not have it.

Any thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from types import TracebackType

# Such a lock is the process's: a second one of its own on the same file is granted, and the first
# file that is closed gives up both. So there is one at a time, and one descriptor. By the file's
# identity, for a path may lead to it in more ways than one.
_held: dict[tuple[int, int], int] = {}
_guard = threading.Lock()


class ReplicaLock:
    """The lock of one replica, held until release() or the end of the process."""

    def __init__(self, descriptor: int, key: tuple[int, int]) -> None:
        self._descriptor = descriptor
        self._key = key
        self._process = os.getpid()

    def release(self) -> None:
        """Once is enough."""
        if os.getpid() != self._process:  # a forked child never had it
            return
        with _guard:
            if _held.pop(self._key, None) is not None:
                os.close(self._descriptor)

    def __enter__(self) -> ReplicaLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def take_lock(path: str) -> ReplicaLock | None:
    """The lock that the file `path` stands for, which is made where it is missing; None where a
    living process has it, this one included. Raises OSError where there can be none.
    """
    process = os.getpid()
    with _guard:
        for key in [key for key, owner in _held.items() if owner != process]:
            del _held[key]  # the parent's
        try:
            status = os.stat(path)
        except FileNotFoundError:
            pass
        else:  # to open and close it again would give up what another thread of ours holds
            if (status.st_dev, status.st_ino) in _held:
                return None
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o644)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return None
            error.filename = path
            raise
        key = status.st_dev, status.st_ino
        _held[key] = process
        return ReplicaLock(descriptor, key)
