"""Which blocks of a replica that is being made are there: a small file in its folder that the
process which makes it writes, and all who load from it read. What a process that died had written
is known by it, and so is what a crash of the machine can have taken.

One writer, who holds the lock of the replica (replica_lock.py); any number of readers, any thread.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
from contextlib import suppress

from shardahead.replica.layout import Layout

#: Of a block: not written; written, while this boot of the machine lasts; on the disk.
ABSENT, THERE, ON_DISK = 0, 1, 2
NAME = ".shardahead-blocks"

_MAGIC = b"SHARDBLK"
_FORMAT = 1
# Magic, format, block bytes, blocks, version of the original, boot of the machine.
_HEADER = struct.Struct("<8sIQQ64s36s")
_HEADER_BYTES = 4096
_DIGEST = struct.Struct("<Q")


class BlocksThere:
    """States and digests of the blocks of `layout`."""

    def __init__(self, memory: mmap.mmap, layout: Layout) -> None:
        self._memory = memory
        self._layout = layout
        self._digests = _HEADER_BYTES + len(layout)

    def state(self, number: int) -> int:
        return self._memory[_HEADER_BYTES + number]

    def digest(self, number: int) -> int:
        found: int = _DIGEST.unpack_from(self._memory, self._digests + 8 * number)[0]
        return found

    def are_there(self, numbers: range) -> bool:
        """All of these."""
        first = _HEADER_BYTES + numbers.start
        return ABSENT not in self._memory[first : first + len(numbers)]

    def absent(self) -> list[int]:
        states = self._memory[_HEADER_BYTES : _HEADER_BYTES + len(self._layout)]
        return [number for number, state in enumerate(states) if state == ABSENT]

    def note(self, number: int, digest: int) -> None:
        """The block is written. Its digest lies there before anyone is told so."""
        _DIGEST.pack_into(self._memory, self._digests + 8 * number, digest)
        self._memory[_HEADER_BYTES + number] = THERE

    def note_on_disk(self, numbers: list[int]) -> None:
        """After fdatasync: these, which were there before it."""
        for number in numbers:
            if self._memory[_HEADER_BYTES + number] == THERE:
                self._memory[_HEADER_BYTES + number] = ON_DISK
        self._memory.flush()

    def forget(self, number: int) -> None:
        self._memory[_HEADER_BYTES + number] = ABSENT

    def digests(self) -> bytes:
        """Of all blocks, eight bytes each, the low one first."""
        return self._memory[self._digests : self._digests + 8 * len(self._layout)]


def open_blocks(folder: str, layout: Layout, version: str, *, write: bool) -> BlocksThere | None:
    """Those of the replica that is being made in `folder`; None where there are none, or of another
    version or another layout. Of those that were written before a start of the machine only what
    is on the disk counts, once a writer has opened them. Raises OSError as open() does.
    """
    path = os.path.join(folder, NAME)
    flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    try:
        status = os.fstat(descriptor)
        size = _size(layout)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return None
        if status.st_uid not in (os.geteuid(), 0):
            return None
        header = os.pread(descriptor, _HEADER.size, 0)
        boot = _boot()
        same_boot = bool(boot) and header == _header(layout, version, boot)
        if not same_boot and (not write or header[:-36] != _header(layout, version, "")[:-36]):
            return None
        memory = _map(descriptor, size, write=write)
    finally:
        os.close(descriptor)
    if not same_boot:
        states = memory[_HEADER_BYTES : _HEADER_BYTES + len(layout)]
        kept = bytes(state if state == ON_DISK else ABSENT for state in states)
        memory[_HEADER_BYTES : _HEADER_BYTES + len(layout)] = kept
        memory[: _HEADER.size] = _header(layout, version, boot)
        memory.flush()
    return BlocksThere(memory, layout)


def create_blocks(folder: str, layout: Layout, version: str) -> BlocksThere:
    """New ones in `folder`, of which none is there."""
    path = os.path.join(folder, NAME)
    with suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        size = _size(layout)
        # Not only ftruncate: a store into a hole of a disk that is full would be a SIGBUS.
        os.posix_fallocate(descriptor, 0, size)
        os.pwrite(descriptor, _header(layout, version, _boot()), 0)
        memory = _map(descriptor, size, write=True)
    finally:
        os.close(descriptor)
    return BlocksThere(memory, layout)


def _size(layout: Layout) -> int:
    return _HEADER_BYTES + 9 * len(layout)


def _map(descriptor: int, size: int, *, write: bool) -> mmap.mmap:
    access = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
    return mmap.mmap(descriptor, size, mmap.MAP_SHARED, access)


def _header(layout: Layout, version: str, boot: str) -> bytes:
    text = (version.encode("ascii"), boot.encode("ascii", "replace"))
    return _HEADER.pack(_MAGIC, _FORMAT, layout.block_bytes, len(layout), *text)


def _boot() -> str:
    """Which start of the machine this is; without /proc none, so that only the disk counts."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
