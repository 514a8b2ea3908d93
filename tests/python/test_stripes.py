"""Blocks that follow the stripes of Lustre, on layouts as its client would give them. Not tested on
a real Lustre: there is none here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import MIB, write_file

from shardahead import prefetch_files
from shardahead.checkpoint.shards import resolve_shards
from shardahead.node.stripes import FileStripes, stripes_of
from shardahead.prefetch.fitted_blocks import fit_blocks
from shardahead.prefetch.options import Options, resolve_options


@dataclass(frozen=True)
class Striped:
    """What the core gives for a file on Lustre."""

    size_bytes: int
    count: int


def by_name(layouts: dict[str, Striped]) -> Callable[[bytes], Striped | None]:
    return lambda path: layouts.get(os.path.basename(os.fsdecode(path)))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    for name, size_bytes in (("a", 1), ("b", 3), ("c", 3)):
        write_file(tmp_path / f"{name}.safetensors", size_bytes * MIB)
    return tmp_path


LAYOUTS = {
    "a.safetensors": Striped(MIB, 1),
    "b.safetensors": Striped(24 * MIB, 4),
    "c.safetensors": Striped(4 * MIB, 8),
}


def test_blocks_are_stripes_of_the_largest_file(checkpoint: Path) -> None:
    shards = resolve_shards(checkpoint)
    default, layouts = resolve_options(environ={}), by_name(LAYOUTS)
    assert fit_blocks(default, shards, layouts).block_bytes == 24 * MIB
    assert fit_blocks(default, shards[2:], layouts).block_bytes == 16 * MIB
    assert fit_blocks(default, [], layouts) == default


@pytest.mark.parametrize(
    ("stripe_bytes", "block_bytes"),
    [
        (MIB, 16 * MIB),
        (3 * MIB, 15 * MIB),
        (12 * MIB, 12 * MIB),
        (64 * MIB, 64 * MIB),
        (128 * MIB, 16 * MIB),  # whole stripes would be waited for too long
    ],
)
def test_the_nearest_multiple_of_the_stripe(
    checkpoint: Path, stripe_bytes: int, block_bytes: int
) -> None:
    layouts = dict.fromkeys(LAYOUTS, Striped(stripe_bytes, 4))
    options = fit_blocks(resolve_options(environ={}), resolve_shards(checkpoint), by_name(layouts))
    assert options.block_bytes == block_bytes


def test_a_block_size_that_was_given_stays(checkpoint: Path) -> None:
    shards = resolve_shards(checkpoint)
    for options in (
        resolve_options(Options(block_size=MIB), environ={}),
        resolve_options(environ={"SHARDAHEAD_BLOCK_SIZE": "1MiB"}),
        resolve_options(environ={"SHARDAHEAD_BLOCK_SIZE_MB": "1"}),
    ):
        assert fit_blocks(options, shards, by_name(LAYOUTS)).block_bytes == MIB


def test_all_files_that_are_striped(checkpoint: Path) -> None:
    shards = resolve_shards(checkpoint)
    layouts = {name: LAYOUTS[name] for name in ("a.safetensors", "c.safetensors")}
    assert stripes_of(shards, by_name(layouts)) == (
        FileStripes(shards[0].path, MIB, MIB, 1),
        FileStripes(shards[2].path, 3 * MIB, 4 * MIB, 8),
    )


def test_elsewhere_nothing_is_striped(checkpoint: Path) -> None:
    assert stripes_of(resolve_shards(checkpoint)) == ()
    handle = prefetch_files(checkpoint)
    handle.wait()
    assert handle.report().block_bytes == 16 * MIB
