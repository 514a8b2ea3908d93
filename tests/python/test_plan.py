"""The plan, whatever the sizes: blocks tile the files, the shares of all ranks tile the plan."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardahead import _core

KIB = 1024
MIB = 1024 * KIB
PARTITIONS = ["block", "file"]

Spans = list[tuple[int, int]] | None

sizes_bytes = st.lists(
    st.integers(0, 40 * MIB) | st.sampled_from([0, 1, 4095, 4096, 4097, MIB]), max_size=6
)
block_bytes = st.integers(64 * KIB, 32 * MIB) | st.sampled_from([64 * KIB, MIB, 16 * MIB])


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[list[int], list[Spans]]:
    """Sizes of files, and what is wanted of each: all of it, or ranges that may overlap."""
    sizes = draw(sizes_bytes)
    ranges = st.lists(st.tuples(st.integers(0, 50 * MIB), st.integers(0, 3 * MIB)), max_size=4)
    return sizes, [draw(st.none() | ranges) for _ in sizes]


def wanted_bytes(spans: Spans, begin: int, end: int) -> int:
    """How many bytes of [begin, end) `spans` ask for, counted piece by piece."""
    if spans is None:
        return end - begin
    cuts = sorted({begin, end, *(c for o, n in spans for c in (o, o + n) if begin < c < end)})
    return sum(
        right - left
        for left, right in pairwise(cuts)
        if any(o <= left and right <= o + n for o, n in spans)
    )


@given(sizes_bytes, block_bytes)
def test_blocks_tile_every_file_in_order(sizes: list[int], size: int) -> None:
    blocks = _core.plan_blocks(sizes, [None] * len(sizes), size)
    tiled = [(file, 0) for file, length in enumerate(sizes) if length]
    assert [(file, offset) for file, offset, _ in blocks if offset == 0] == tiled
    for (file, offset, length), after in pairwise([*blocks, (len(sizes), 0, 0)]):
        assert after[:2] == (file, offset + length) if after[1] else offset + length == sizes[file]
    assert blocks == sorted(blocks)


@given(sizes_bytes, block_bytes)
def test_blocks_are_whole_pages_and_no_larger_than_asked(sizes: list[int], size: int) -> None:
    for file, offset, length in _core.plan_blocks(sizes, [None] * len(sizes), size):
        assert 0 < length <= size
        assert offset % 4096 == 0
        assert length % 4096 == 0 or offset + length == sizes[file]


def test_the_first_blocks_are_small_and_then_as_large_as_asked() -> None:
    lengths = [length for _, _, length in _core.plan_blocks([2**30], [None], 16 * MIB)]
    assert lengths[0] == 2 * MIB
    assert lengths[:-1] == sorted(lengths[:-1])
    assert lengths[-2] == 16 * MIB


@given(checkpoints(), block_bytes)
def test_blocks_do_not_depend_on_what_is_wanted(
    checkpoint: tuple[list[int], list[Spans]], size: int
) -> None:
    sizes, spans = checkpoint
    whole: list[Spans] = [None] * len(sizes)
    assert _core.plan_blocks(sizes, spans, size) == _core.plan_blocks(sizes, whole, size)


@pytest.mark.parametrize("partition", PARTITIONS)
@given(checkpoints(), block_bytes, st.integers(1, 9))
def test_shares_are_disjoint_and_complete(
    partition: str, checkpoint: tuple[list[int], list[Spans]], size: int, ranks: int
) -> None:
    sizes, spans = checkpoint
    blocks = _core.plan_blocks(sizes, spans, size)
    shares = [_core.plan_share(sizes, spans, size, partition, rank, ranks) for rank in range(ranks)]
    assert all(share == sorted(share) for share in shares)
    wanted = [
        index
        for index, (file, offset, length) in enumerate(blocks)
        if wanted_bytes(spans[file], offset, offset + length)
    ]
    assert sorted(index for share in shares for index in share) == wanted
    for rank, share in enumerate(shares):
        dealt = {index if partition == "block" else blocks[index][0] for index in share}
        assert all(number % ranks == rank for number in dealt)


@pytest.mark.parametrize("size", [0, 4095, 2**30 + 1])
def test_a_block_size_out_of_range(size: int) -> None:
    with pytest.raises(ValueError, match=f"block_size .*not {size}"):
        _core.plan_blocks([1], [None], size)


def test_too_many_blocks_are_refused_before_they_take_memory() -> None:
    with pytest.raises(ValueError, match=r"block_size 4096 gives \d+ blocks"):
        _core.plan_blocks([2**50], [None], 4096)


@pytest.mark.parametrize(("rank", "size"), [(0, 0), (-1, 2), (2, 2), (0, -1)])
def test_a_rank_out_of_range(rank: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"not {rank if size > 0 else size}"):
        _core.plan_share([1], [None], 4096, "block", rank, size)


def test_an_unknown_partition() -> None:
    with pytest.raises(ValueError, match=r"partition must be one of .*not 'half'"):
        _core.plan_share([1], [None], 4096, "half", 0, 1)
