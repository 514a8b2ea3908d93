"""Blocks that suit the layout of the files: whole stripes on Lustre. Any thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from shardahead import _core
from shardahead.checkpoint.shards import Shard
from shardahead.node.stripes import StripeOf
from shardahead.prefetch.options import PrefetchOptions


def fit_blocks(
    options: PrefetchOptions, shards: Sequence[Shard], stripe_of: StripeOf = _core.stripe_of
) -> PrefetchOptions:
    """The options with blocks that are whole stripes of the largest file, the first of those; as
    they are where the block size was given. The same on all ranks, who meet only where their blocks
    are equal.
    """
    if options.block_size_given or not shards:
        return options
    largest = max(shards, key=lambda shard: shard.size_bytes)
    stripe = stripe_of(os.fsencode(largest.path))
    if stripe is None:
        return options
    fitted = _core.striped_block_bytes(options.block_bytes, stripe.size_bytes)
    return replace(options, block_bytes=fitted)
