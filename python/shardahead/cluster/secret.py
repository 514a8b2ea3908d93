"""What the nodes of a job know and nobody else: from a variable, or a file that only its owner
reads.

Any thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from shardahead.checkpoint.opening import naming

VARIABLE = "SHARDAHEAD_SECRET"
_LEAST_BYTES, _MOST_BYTES = 8, 4096


def secret_in(environ: Mapping[str, str]) -> bytes | None:
    """What `SHARDAHEAD_SECRET` says: the secret, or `@FILE`. None where it is not set.

    Raises ValueError for one that is too short or too long, and for a file that others can read;
    OSError where it cannot be read.
    """
    text = environ.get(VARIABLE, "")
    if not text:
        return None
    content = _of_file(text[1:]) if text.startswith("@") else os.fsencode(text)
    if not _LEAST_BYTES <= len(content) <= _MOST_BYTES:
        raise ValueError(
            f"{VARIABLE} must have {_LEAST_BYTES} to {_MOST_BYTES} bytes, not {len(content)}"
        )
    return content


def _of_file(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file, naming(path):
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{VARIABLE}: {path!r} is not a regular file")
        if status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise ValueError(f"{VARIABLE}: {path!r} can be read by others: chmod 600")
        return file.read(_MOST_BYTES + 1).strip()
