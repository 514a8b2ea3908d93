"""How far a prefetch has got: what `PrefetchHandle.progress` gives. Plain figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a prefetch has got.

    Of the `planned_bytes` of its own share, `done_bytes` have been brought in, by anyone on this
    node, were there already, or, `failed_bytes` of them, could not be read. `node_read_bytes` all
    of this node have brought in since its start, itself alone where no one counts that. `seconds`
    is since its start, at the end to it. `limited_by` is as in the `Report`, by what is known so
    far.
    """

    planned_bytes: int
    done_bytes: int
    node_read_bytes: int
    seconds: float
    limited_by: str = "unknown"
    failed_bytes: int = 0
