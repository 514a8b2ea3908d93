"""Which paths lead to the same file.

Some mounts give several files one inode number (virtiofs across host mounts, FUSE servers that have
none), or the number 0. So equal numbers make a candidate and prove nothing. Only candidates are
opened: their contents are compared where their paths differ. Any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from shardahead.checkpoint.opening import open_regular

#: st_mode, st_size, st_dev, st_ino and st_mtime_ns, as the core gives them.
Status = tuple[int, int, int, int, int]

#: The page of a file from an offset on; None where it cannot be read.
PageAt = Callable[[int], bytes | None]

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
        with _opened(paths[i]) as page_at:
            beginning = page_at(0)
            if beginning is None:
                continue
            _, size_bytes, _, _, modified = statuses[i]
            alike = by_beginning.setdefault((size_bytes, modified, beginning), [])
            same = next((j for j in alike if _same_pages(page_at, paths[j], size_bytes)), None)
        if same is None:
            alike.append(i)
        else:
            first[i] = same


def _same_pages(page_at: PageAt, path: str, size_bytes: int) -> bool:
    with _opened(path) as other_page_at:
        for offset in _offsets(size_bytes):
            page = page_at(offset)
            if page is None or page != other_page_at(offset):
                return False
    return True


def _offsets(size_bytes: int) -> list[int]:
    last = max(0, size_bytes - _PAGE_BYTES)
    if size_bytes <= _WHOLE_BYTES:
        return list(range(0, size_bytes, _PAGE_BYTES))
    return [last * number // _PROBES for number in range(1, _PROBES + 1)]


@contextmanager
def _opened(path: str) -> Iterator[PageAt]:
    """Reads pages of the file, which is opened once: None for what cannot be read."""
    try:
        descriptor, _ = open_regular(path)
    except OSError:
        yield lambda _offset: None
        return

    def page_at(offset: int) -> bytes | None:
        try:
            return os.pread(descriptor, _PAGE_BYTES, offset)
        except OSError:
            return None

    try:
        with suppress(OSError):
            # These pages alone: nothing is to be brought in by a look.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        yield page_at
    finally:
        with suppress(OSError):
            os.close(descriptor)
