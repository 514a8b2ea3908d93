"""Opening a file for reading as plain open() does, but never waiting for the writer of a FIFO.

The core does the same (csrc/node/file_io.h). Any thread; Ctrl-C interrupts every wait.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

_KINDS = (
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
)


def open_regular(path: str) -> tuple[int, os.stat_result]:
    """A descriptor of the regular file `path`, for reading, and its status once it was open.

    Waits for whoever holds a lease on the file, as open() does. Raises OSError as open() does, with
    EINVAL where the path is no regular file, EISDIR for a folder.
    """
    descriptor = _open(path)
    try:
        status = os.fstat(descriptor)
        refuse_irregular(status.st_mode, path)
        # From here on as if it had not been there: it may be passed on to a server.
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


@contextmanager
def naming(path: str, offset: int | None = None) -> Iterator[None]:
    """OSErrors of what is done with an open descriptor name its file, that it was read, and where:
    of themselves they do not.
    """
    try:
        yield
    except OSError as error:
        if not error.filename:
            error.filename = path
            vars(error).update(operation="read", offset=offset)
        raise


def _open(path: str) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
    try:
        return os.open(path, flags | os.O_NONBLOCK)
    except BlockingIOError:
        # A lease, or a device that is in use. By the descriptor of what was looked at, so that what
        # is waited for is no FIFO.
        looked_at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            refuse_irregular(os.fstat(looked_at).st_mode, path)
            return os.open(f"/proc/self/fd/{looked_at}", flags)
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(looked_at)


def refuse_irregular(mode: int, path: str) -> None:
    """Raises IsADirectoryError, or OSError with EINVAL that names the kind, by st_mode."""
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "unknown kind")
    raise OSError(errno.EINVAL, f"not a regular file: {kind}", path)
