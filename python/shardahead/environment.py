"""The variables SHARDAHEAD_*: which there are, what their texts mean, and which nobody reads.

Pure but for one thing: it remembers what was said already. Any thread.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from shardahead.units import printable

PREFIX = "SHARDAHEAD_"

#: What is read, and what it is for: docs/settings.md.
VARIABLES = (
    "SHARDAHEAD_BLOCK_SIZE",
    "SHARDAHEAD_BLOCK_SIZE_MB",
    "SHARDAHEAD_BOARD_FOLDER",
    "SHARDAHEAD_DISABLE",
    "SHARDAHEAD_INFLIGHT_BYTES",
    "SHARDAHEAD_LEARN",
    "SHARDAHEAD_LEARN_KEY",
    "SHARDAHEAD_LOCAL_RANK",
    "SHARDAHEAD_LOCAL_SIZE",
    "SHARDAHEAD_MEMORY_BUDGET_BYTES",
    "SHARDAHEAD_MODE",
    "SHARDAHEAD_PARTITION",
    "SHARDAHEAD_RATE_LIMIT",
    "SHARDAHEAD_REPLICA_FOLDER",
    "SHARDAHEAD_REPORT",
    "SHARDAHEAD_SECRET",
    "SHARDAHEAD_STRATEGY",
    "SHARDAHEAD_THREADS",
    "SHARDAHEAD_WINDOW_BYTES",
)
# Of the tests and benchmarks; and what Kubernetes and Docker leave of a service of this name.
_NOT_OURS = re.compile(
    r"SHARDAHEAD_(?:SLOWFS|ENGINES|ENGINE_SOURCES|SIMULATION_SEEDS"
    r"|SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT(?:_.*)?)",
    re.DOTALL,
)
# SHARD_AHEAD_THREADS and SHARDAHAED_DISABLE are meant for us; SHARDS and SHARD_COUNT are not.
_LOOKS_LIKE_OURS = "SHARD"
_ALIKE = 0.85
_ALIKE_WITHIN_PREFIX = 0.6

_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")

_said: set[str] = set()


def is_on(variable: str, environ: Mapping[str, str]) -> bool:
    """The switch `variable`: 1, true, yes, on, or 0, false, no, off, in any case; off where it is
    not set or empty. Raises ValueError with its name and value for anything else.
    """
    text = environ.get(variable, "")
    word = text.strip().lower()
    if word in _YES:
        return True
    if not word or word in _NO:
        return False
    choices = ", ".join((*_YES, *_NO))
    raise ValueError(f"{variable} must be one of {choices}, not {text!r}")


def unread_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that look like ours and that nothing reads, each with the one that may be meant.
    What is empty is not set.
    """
    found: dict[str, str | None] = {}
    for name, text in environ.items():
        likeness = name.upper()
        if not text or not likeness.startswith(_LOOKS_LIKE_OURS):
            continue
        if name in VARIABLES or _NOT_OURS.fullmatch(name):
            continue
        meant = meant_by(name)
        if meant or likeness.startswith(PREFIX):
            found[name] = meant
    return dict(sorted(found.items()))


def meant_by(name: str) -> str | None:
    """The variable of ours that is nearest to this name, where one is near."""
    name = name.upper()
    if name in VARIABLES:  # of another case
        return name
    if name.startswith(PREFIX):
        options = [variable[len(PREFIX) :] for variable in VARIABLES]
        close = difflib.get_close_matches(name[len(PREFIX) :], options, 1, _ALIKE_WITHIN_PREFIX)
        return PREFIX + close[0] if close else None
    close = difflib.get_close_matches(name, VARIABLES, 1, _ALIKE)
    return close[0] if close else None


def new_warning(environ: Mapping[str, str]) -> str | None:
    """One sentence about the variables that nothing reads; None where there are none, or where this
    process was told already.
    """
    unread = {n: meant for n, meant in unread_variables(environ).items() if n not in _said}
    if not unread:
        return None
    _said.update(unread)
    names = [
        printable(name) + (f" (did you mean {meant}?)" if meant else "")
        for name, meant in unread.items()
    ]
    return f"environment variables that nothing reads: {', '.join(names)}"
