"""What it means that a mount does not keep the pages that are brought in, and what helps.

The core finds it out (csrc/node/keeping.h), here are the words; what helps which filesystem is in
filesystems.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from shardahead.node.filesystems import CLOSED, EMPTIED, UNCACHED, filesystem_of, remedy_of
from shardahead.node.mounts import folder_below_mount, mount_of, mounts_below
from shardahead.units import printable

#: What is the matter, by what the core found, or `warm` at its end.
HOW = {
    EMPTIED: "every open() of a file empties its page cache",
    UNCACHED: "reads bypass the page cache",
    CLOSED: "the last close() of a file empties its page cache",
}


def keeps_pages(keeping: str) -> bool | None:
    """What the core found, as the report has it; None where it is not known."""
    return None if keeping == "unknown" else keeping not in HOW


def keeping_reason(keeping: str, path: str) -> str:
    """One line about the mount of `path`: what is the matter, and the remedy; "" where pages are
    kept, as far as is known.
    """
    if keeping not in HOW:
        return ""
    where, mount_type, source, below = "this mount", "", "", ""
    with suppress(OSError):
        mount = mount_of(path)
        where = f"{mount.mount_point} ({mount.type})"
        mount_type, source = mount.type, mount.source
        below = folder_below_mount(mount, [path])
    remedy = remedy_of(mount_type, source, keeping, below)
    return printable(f"{where} does not keep pages: {HOW[keeping]}; {remedy.text()}")


def forgetting(paths: Sequence[str]) -> list[str]:
    """Which filesystems of these files let go of pages by themselves, and when: for advice, as it
    is known of them by name.
    """
    rows = {filesystem_of(m.type, m.source) for m in mounts_below(paths).values()}
    return sorted(f"{row.name} {row.forgets}" for row in rows if row.forgets)
