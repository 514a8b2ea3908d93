"""How a command ends: what it prints, and its exit status. It finds out nothing itself.

For the main thread.
"""

from __future__ import annotations

from contextlib import suppress

from shardahead.command.endings import status_of
from shardahead.command.standard_streams import OutputError, complain, show

DONE, INCOMPLETE, WRONG_USAGE = 0, 1, 2


def finish(
    text: str,
    reason: str | None,
    ended: KeyboardInterrupt | None = None,
    *,
    complains: bool = True,
) -> int:
    """Prints the result, if there is one, says why it is incomplete where it is, unless another
    process does, and gives the exit status.
    """
    if text and ended is None:
        show(text)
    elif text:  # its status is the signal's, whoever listens
        with suppress(OutputError):
            show(text)
    if reason and complains:
        complain(f"incomplete: {reason}")
    return status_of(ended) if ended else INCOMPLETE if reason else DONE
