"""Profiles in the folder that `learn` names: their names, read as what anyone may have put there,
and written so that no one finds half of one. Whether one is used is decided in learning.py. Any
thread.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import suppress

from shardahead.checkpoint.shards import Shard
from shardahead.prefetch.profile import MAX_PROFILE_BYTES, Profile, ProfileError, decoded, encoded

_SUFFIX = ".profile"
_UNFINISHED = ".unfinished"
_RANK = re.compile(r"(?:local )?rank [0-9]+ of [0-9]+")
_MOST_KEY = 80  # characters of it in a file's name
_OLD_SECONDS = 3600.0  # what is unfinished for so long is left by a process that died

_numbers = itertools.count(1)  # next() is atomic


def named_files(shards: Sequence[Shard]) -> tuple[tuple[str, int], ...]:
    """What a checkpoint is known by on any node and mount: names, within the folder that holds them
    all, and sizes.
    """
    folders = {os.path.dirname(shard.path) for shard in shards}
    common = os.path.commonpath(folders) if folders else ""
    return tuple(
        (os.path.relpath(shard.path, common).encode("utf-8", "replace").decode(), shard.size_bytes)
        for shard in shards
    )


def profile_name(files: Sequence[tuple[str, int]], who: str) -> str:
    """The name of the file for this checkpoint and this reader."""
    checkpoint = hashlib.blake2b(json.dumps(files).encode(), digest_size=10).hexdigest()
    plain = re.sub(r"[^A-Za-z0-9.-]", "_", who)[:_MOST_KEY]
    if not _RANK.fullmatch(who):  # two keys must not meet in one name
        plain += (
            "-" + hashlib.blake2b(who.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
        )
    return f"{checkpoint}-{plain}{_SUFFIX}"


def read_profile(path: str, files: Sequence[tuple[str, int]] | None = None) -> Profile | None:
    """The profile in the file `path`, of the checkpoint of `files` where they are given; None where
    there is none. Raises ProfileError for what is there instead, and OSError as open and read do.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ProfileError("it is a symbolic link") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ProfileError("it is no regular file")
        if status.st_uid not in (os.geteuid(), 0):
            raise ProfileError(f"it belongs to another user ({status.st_uid})")
        if status.st_size > MAX_PROFILE_BYTES:
            raise ProfileError(f"it has {status.st_size} bytes, the limit is {MAX_PROFILE_BYTES}")
        content = _read(descriptor)
    finally:
        os.close(descriptor)
    profile = decoded(content)
    if files is not None and profile.files != tuple(files):
        raise ProfileError("it is of another checkpoint")
    return profile


def write_profile(path: str, profile: Profile) -> int:
    """Puts it into the file `path`, in place of what is there, all at once; gives its bytes. Raises
    ProfileError where it is too large, and OSError as open, write and rename do.
    """
    content = encoded(profile)
    if content is None:
        raise ProfileError(f"it would have more than {MAX_PROFILE_BYTES} bytes")
    folder, name = os.path.split(path)
    _remove_left_over(folder, name)
    mark = f"{socket.gethostname()[:64]}-{os.getpid()}-{next(_numbers)}"
    unfinished = os.path.join(folder, f".{name}.{mark.replace(os.sep, '_')}{_UNFINISHED}")
    descriptor = os.open(
        unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.rename(unfinished, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise
    return len(content)


def _read(descriptor: int) -> bytes:
    parts = []
    left = MAX_PROFILE_BYTES + 1
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _remove_left_over(folder: str, name: str) -> None:
    """What processes that died left of this profile."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(f".{name}.") or not entry.name.endswith(_UNFINISHED):
                continue
            with suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD_SECONDS:
                    os.unlink(entry.path)
