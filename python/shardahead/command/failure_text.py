"""What a command says of an error: the error itself, of what may not be read who denies it, and of
others what they mean.

May wait for storage; any thread.
"""

from __future__ import annotations

import errno
import os

from shardahead.command.error_meanings import with_meaning
from shardahead.node.access import why_denied
from shardahead.prefetch.report import describe_failure


def failure_text(error: Exception) -> str:
    """In one line."""
    denial = denial_of(error)
    return f"{describe_failure(error)}{denial}" if denial else with_meaning(error)


def denial_of(error: Exception, path: str = "") -> str:
    """What is to be said behind "Permission denied", which the error of this path may be; "" where
    it is another.
    """
    if not isinstance(error, OSError) or error.errno != errno.EACCES:
        return ""
    name = path or error.filename
    why = why_denied(os.fsdecode(name)) if isinstance(name, str | bytes) else ""
    return f": {why}" if why else ""
