"""What it means that a mount does not keep the pages that are brought in, and what helps.

The core finds it out (csrc/node/keeping.h), here are the words. Any thread.
"""

from __future__ import annotations

from contextlib import suppress

from shardahead.node.mounts import mount_of
from shardahead.units import printable

_HOW = {
    "emptied_by_open": "every open() of a file empties its page cache",
    "uncached": "reads bypass the page cache",
}
_READ_INSTEAD = 'load with mode="pread", as the weight iterators do by themselves'


def keeps_pages(keeping: str) -> bool | None:
    """What the core found, as the report has it; None where it is not known."""
    return None if keeping == "unknown" else keeping not in _HOW


def keeping_reason(keeping: str, path: str) -> str:
    """One line about the mount of `path`: what is the matter, and the remedy; "" where pages are
    kept, as far as is known.
    """
    if keeping not in _HOW:
        return ""
    where, mount_type = "this mount", ""
    with suppress(OSError):
        mount = mount_of(path)
        where, mount_type = printable(f"{mount.mount_point} ({mount.type})"), mount.type
    option = _remedy(keeping, mount_type)
    remedy = f"{option}, or {_READ_INSTEAD}" if option else _READ_INSTEAD
    return f"{where} does not keep pages: {_HOW[keeping]}; remedy: {remedy}"


def _remedy(keeping: str, mount_type: str) -> str:
    emptied = keeping == "emptied_by_open"
    if mount_type.startswith("fuse"):
        return (
            "mount it with the option kernel_cache or auto_cache (FOPEN_KEEP_CACHE)"
            if emptied
            else "mount it without direct_io"
        )
    if mount_type == "virtiofs":
        return "run virtiofsd with --cache always"
    if mount_type == "9p":
        return "mount it with cache=readahead or cache=loose"
    if mount_type in ("cifs", "smb3"):
        return "mount it without cache=none and forcedirectio"
    return ""
