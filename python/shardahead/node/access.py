"""Why this process may not use a path: which file, or which folder on the way to it, denies that,
whose it is, and who this process is.

Looks at statuses and reads no file, and may wait for storage. Any thread.
"""

from __future__ import annotations

import errno
import grp
import os
import shlex
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shardahead.node.limits import UNSEEN_OWNER, owner_name, user_name
from shardahead.units import quoted

_MOST_LINKS = 40  # on the way, as the kernel has it
_MOST_GROUPS = 6  # that a message names
_BITS = {"r": 4, "w": 2, "x": 1}
_ACCESS = {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}


@dataclass(frozen=True)
class Denial:
    """What denies it: the file or folder `path` does not give `wanted`, "r", "w" or "x". `wanted`
    is "" where its mode would give it.
    """

    path: str
    is_folder: bool
    wanted: str
    uid: int
    gid: int
    mode: int


@dataclass(frozen=True)
class Identity:
    """Who a process is to the kernel: its effective user, and all of its groups."""

    uid: int
    groups: tuple[int, ...]


def why_denied(path: str) -> str:
    """What to say behind "Permission denied" of this path; "" where nothing is known."""
    try:
        found = find_denial(path)
    except (OSError, ValueError):
        return ""
    groups = tuple(dict.fromkeys((os.getegid(), *os.getgroups())))
    return denial_text(found, path, Identity(os.geteuid(), groups)) if found else ""


def find_denial(path: str) -> Denial | None:
    """The first on the way to `path`, links followed, that denies what is wanted of it. Raises
    OSError for what else is wrong there.
    """
    here, left, links = "/", _parts(os.path.abspath(path)), 0
    while left:
        each = left.pop(0)
        if each == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, each)
        try:
            mode = os.lstat(there).st_mode
        except PermissionError:
            return _denial(here, "x")
        except FileNotFoundError:
            return None if os.access(here, os.W_OK, effective_ids=True) else _denial(here, "w")
        if stat.S_ISLNK(mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(there)
            left = [*_parts(target), *left]
            here = "/" if target.startswith("/") else here
        else:
            here = there
    wanted = "rxw" if os.path.isdir(here) else "r"
    missing = (each for each in wanted if not os.access(here, _ACCESS[each], effective_ids=True))
    return _denial(here, next(missing, ""))


def denial_text(found: Denial, path: str, who: Identity) -> str:
    """Whose it is, who asks, and what to type. `path`: as it was given."""
    kind = "folder" if found.is_folder else "file"
    itself = found.path == os.path.abspath(path)
    name = f"the {kind}" if itself else f"the {kind} {quoted(found.path)}"
    owner = f"{owner_name(found.uid, Path('/'))}:{group_name(found.gid)}"
    this = f"this is {user_name(who.uid)} (uid {who.uid}, {_groups_text(who.groups)})"
    return (
        f"{name} is of {owner}, mode {found.mode & 0o7777:04o}, and {this}: {_remedy(found, who)}"
    )


def group_name(gid: int) -> str:
    """The name, or the number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _remedy(found: Denial, who: Identity) -> str:
    if not found.wanted or who.uid == 0:
        return (
            "its mode is not what forbids it: an access list, a security module, or a server to "
            "which root is nobody (root_squash); run it as the owner"
        )
    typed = shlex.quote(found.path)
    owner = owner_name(found.uid, Path("/"))
    by_owner = "" if owner == UNSEEN_OWNER else f"run it as {owner}, or "
    bits = f"{found.wanted}x" if found.is_folder and found.wanted != "x" else found.wanted
    if found.uid == who.uid:
        return f"type chmod u+{bits} {typed}"
    if found.wanted == "w":
        return f"{by_owner}name another folder"
    if found.gid in who.groups:
        return f"{by_owner}have its owner type chmod g+{bits} {typed}"
    group, user = group_name(found.gid), user_name(who.uid)
    if not found.mode >> 3 & _BITS[found.wanted]:
        return f"{by_owner}have its owner type chmod o+{bits} {typed}"
    if _is_member(found.gid, user):
        return f"this process is older than {user}'s group: log in anew, or type newgrp {group}"
    return f"{by_owner or 'run it '}as one of the group {group}"


def _groups_text(groups: Sequence[int]) -> str:
    names = [group_name(gid) for gid in groups[:_MOST_GROUPS]]
    more = f" and {len(groups) - _MOST_GROUPS} more" if len(groups) > _MOST_GROUPS else ""
    return f"group{'s' if len(groups) > 1 else ''} {', '.join(names)}{more}"


def _is_member(gid: int, user: str) -> bool:
    try:
        return user in grp.getgrgid(gid).gr_mem
    except KeyError:
        return False


def _denial(path: str, wanted: str) -> Denial:
    status = os.stat(path)
    return Denial(
        path,
        stat.S_ISDIR(status.st_mode),
        wanted,
        status.st_uid,
        status.st_gid,
        status.st_mode,
    )


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
