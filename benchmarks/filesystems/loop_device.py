"""A block device on a file, which the kernel lets go of with its last user: nothing to clean up.

`losetup` knows no such device: one that it makes outlives whoever is killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_READ_ONLY, _AUTOCLEAR, _DIRECT_IO = 1, 4, 16
# struct loop_config: the file, the size of a block, a loop_info64 of which only the flags are set.
_CONFIG = struct.Struct("=II 52x I 176x 64x")
_ATTEMPTS = 10  # others look for free devices, too


@contextmanager
def attached(file: Path, *, read_only: bool = True) -> Iterator[str]:
    """Its path. Reads go to `file` past the page cache, where its filesystem lets them."""
    access = os.O_RDONLY if read_only else os.O_RDWR
    backing = os.open(file, access)
    try:
        device, path = _configured(backing, access, _READ_ONLY if read_only else 0)
    finally:
        os.close(backing)
    try:
        yield path
    finally:
        os.close(device)


def _configured(backing: int, access: int, flags: int) -> tuple[int, str]:
    for attempt in range(_ATTEMPTS):
        path = _free_device()
        device = os.open(path, access)
        try:
            wanted = flags | _AUTOCLEAR | _DIRECT_IO
            fcntl.ioctl(device, _LOOP_CONFIGURE, _CONFIG.pack(backing, 0, wanted))
            return device, path
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def _free_device() -> str:
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        return f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
    finally:
        os.close(control)
