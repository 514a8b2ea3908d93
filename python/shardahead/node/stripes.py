"""How Lustre lays the files of a checkpoint out over its servers.

The layout is read by the core (csrc/node/stripe.h), from an extended attribute; no other filesystem
has it. Tested on recorded layouts only. Any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from shardahead import _core
from shardahead.checkpoint.shards import Shard


class Stripe(Protocol):
    """As the core gives it; see csrc/node/stripe.h."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def count(self) -> int: ...


StripeOf = Callable[[bytes], Stripe | None]


@dataclass(frozen=True)
class FileStripes:
    """One file of `file_bytes` in stripes of `stripe_bytes`, which lie on `stripe_count` storage
    targets in turn. Of a layout of several components that which holds most of the file.
    """

    path: str
    file_bytes: int
    stripe_bytes: int
    stripe_count: int


def stripes_of(
    shards: Sequence[Shard], stripe_of: StripeOf = _core.stripe_of
) -> tuple[FileStripes, ...]:
    """The files that are striped; empty where the files are not on Lustre."""
    found = []
    for shard in shards:
        stripe = stripe_of(os.fsencode(shard.path))
        if stripe is not None:
            found.append(FileStripes(shard.path, shard.size_bytes, stripe.size_bytes, stripe.count))
    return tuple(found)
