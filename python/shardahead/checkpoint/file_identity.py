"""Which paths lead to the same file.

Some mounts give several files one inode number (virtiofs across host mounts, FUSE servers that have
none), or the number 0. So equal numbers make a candidate and prove nothing. Only candidates are
opened: their contents are compared where their paths differ. Any thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

#: st_mode, st_size, st_dev, st_ino and st_mtime_ns, as the core gives them.
Status = tuple[int, int, int, int, int]

_PAGE_BYTES = 4096
_WHOLE_BYTES = 64 * 1024  # files up to that size are compared as a whole
_PROBES = 8  # pages of larger ones, evenly spaced, and the last


def first_of_same(
    paths: Sequence[str], statuses: Sequence[Status], *, compare_contents: bool
) -> list[int]:
    """For each path the position of the first that leads to the same file, which may be its own.

    The same are paths that are equal, also once links are followed. With `compare_contents`, where
    device, inode, size and mtime are equal, also those whose contents are, at some pages: hard
    links. What cannot be read is proved to be nothing else.
    """
    first = list(range(len(paths)))
    by_path: dict[str, int] = {}
    candidates: dict[tuple[int, int], list[int]] = {}
    for i, (path, status) in enumerate(zip(paths, statuses, strict=True)):
        first[i] = by_path.setdefault(path, i)
        if first[i] == i:
            candidates.setdefault((status[2], status[3]), []).append(i)
    for group in candidates.values():
        if len(group) > 1:
            _settle(group, paths, statuses, first, compare_contents=compare_contents)
    for i, earlier in enumerate(first):  # which may itself be the same as one before it
        first[i] = first[earlier]
    return first


def _settle(
    group: Sequence[int],
    paths: Sequence[str],
    statuses: Sequence[Status],
    first: list[int],
    *,
    compare_contents: bool,
) -> None:
    """Of files of one inode number."""
    by_path: dict[str, int] = {}
    by_beginning: dict[tuple[int, int, bytes], list[int]] = {}
    for i in group:
        first[i] = by_path.setdefault(os.path.realpath(paths[i]), i)
        if first[i] != i or not compare_contents:
            continue
        beginning = _page(paths[i], 0)
        if beginning is None:
            continue
        _, size_bytes, _, _, modified = statuses[i]
        alike = by_beginning.setdefault((size_bytes, modified, beginning), [])
        same = next((j for j in alike if _same_pages(paths[i], paths[j], size_bytes)), None)
        if same is None:
            alike.append(i)
        else:
            first[i] = same


def _same_pages(path: str, other: str, size_bytes: int) -> bool:
    for offset in _offsets(size_bytes):
        page = _page(path, offset)
        if page is None or page != _page(other, offset):
            return False
    return True


def _offsets(size_bytes: int) -> list[int]:
    last = max(0, size_bytes - _PAGE_BYTES)
    if size_bytes <= _WHOLE_BYTES:
        return list(range(0, size_bytes, _PAGE_BYTES))
    return [last * number // _PROBES for number in range(1, _PROBES + 1)]


def _page(path: str, offset: int) -> bytes | None:
    """None where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            # These pages alone: nothing is to be brought in by a look.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            return os.pread(descriptor, _PAGE_BYTES, offset)
        finally:
            os.close(descriptor)
    except OSError:
        return None
