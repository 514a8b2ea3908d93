"""The parts of a replica by themselves: its blocks, what is noted of them, and where it lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MIB
from hypothesis import given
from hypothesis import strategies as st
from replica_support import make_model, place

from shardahead.checkpoint.shards import resolve_shards
from shardahead.replica import blocks_there, replica_folder
from shardahead.replica.blocks_there import ABSENT, ON_DISK, THERE, create_blocks, open_blocks
from shardahead.replica.layout import Layout
from shardahead.replica.original import look_at
from shardahead.replica.replica_folder import place_of
from shardahead.replica.whole_replica import ReplicaError, source_of, write_source

VERSION = "v" * 64
LAYOUT = Layout([5, 0, 8, 1], 4)


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(1, 9))
def test_blocks_are_all_bytes_each_once_and_in_order(sizes: list[int], block_bytes: int) -> None:
    layout = Layout(sizes, block_bytes)
    blocks = [layout.block(number) for number in range(len(layout))]
    bytes_of_blocks = [
        (block.file, at)
        for block in blocks
        for at in range(block.offset, block.offset + block.length)
    ]
    assert bytes_of_blocks == [(file, at) for file, size in enumerate(sizes) for at in range(size)]
    assert layout.size_bytes == sum(sizes)
    for file, size in enumerate(sizes):
        assert list(layout.of_file(file)) == [b.number for b in blocks if b.file == file]
        for offset in range(size):
            for length in (0, 1, size - offset):
                under = {
                    b.number
                    for b in blocks
                    if length
                    and b.file == file
                    and b.offset < offset + length
                    and offset < b.offset + b.length
                }
                assert set(layout.under(file, offset, length)) == under
    with pytest.raises(IndexError, match="no block"):
        layout.block(len(layout))


def test_what_is_noted_is_seen_by_others(tmp_path: Path) -> None:
    made = create_blocks(str(tmp_path), LAYOUT, VERSION)
    seen = open_blocks(str(tmp_path), LAYOUT, VERSION, write=False)
    assert seen is not None
    assert seen.absent() == list(range(len(LAYOUT)))
    made.note(1, 2**64 - 1)
    made.note(2, 7)
    assert seen.are_there(range(1, 3))
    assert not seen.are_there(range(2))
    assert (seen.digest(1), seen.digest(2)) == (2**64 - 1, 7)
    made.note_on_disk([2, 3])  # 3 was not there: it stays absent
    assert [seen.state(number) for number in range(4)] == [ABSENT, THERE, ON_DISK, ABSENT]
    made.forget(1)
    assert seen.absent() == [0, 1, 3, 4]


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("wrong", ["version", "layout", "short", "garbage", "link", "fifo", "none"])
def test_blocks_of_something_else_are_none(tmp_path: Path, wrong: str, write: bool) -> None:
    create_blocks(str(tmp_path), LAYOUT, VERSION)
    path = tmp_path / blocks_there.NAME
    content = path.read_bytes()
    version, layout = VERSION, LAYOUT
    if wrong == "version":
        version = "w" * 64
    elif wrong == "layout":
        layout = Layout([5, 0, 8, 5], 4)
    elif wrong == "short":
        path.write_bytes(content[:-1])
    elif wrong == "garbage":
        path.write_bytes(bytes(len(content)))
    else:
        path.unlink()
    if wrong == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif wrong == "fifo":
        os.mkfifo(path)
    assert open_blocks(str(tmp_path), layout, version, write=write) is None


def test_after_a_start_of_the_machine_only_the_disk_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create_blocks(str(tmp_path), LAYOUT, VERSION)
    made.note(0, 1)
    made.note(1, 1)
    made.note_on_disk([1])
    monkeypatch.setattr(blocks_there, "_boot", lambda: "another")
    assert open_blocks(str(tmp_path), LAYOUT, VERSION, write=False) is None
    found = open_blocks(str(tmp_path), LAYOUT, VERSION, write=True)
    assert found is not None
    assert [found.state(number) for number in (0, 1)] == [ABSENT, ON_DISK]
    assert open_blocks(str(tmp_path), LAYOUT, VERSION, write=False) is not None


def test_where_it_lies(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--Qwen--Qwen2-0.5B" / "snapshots" / ("0123abcd" * 5)
    names = {
        make_model(snapshot, (MIB,)): "Qwen--Qwen2-0.5B-0123abcd",
        make_model(tmp_path / ".hidden", (MIB,)): "hidden",
        make_model(tmp_path / "a b\n", (MIB,)): "a_b_",
    }
    for folder, name in names.items():
        assert place_of(look_at(resolve_shards(folder)), str(tmp_path / "local")).name == name


def test_a_folder_of_another_user_is_no_replica(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root")
    folder = tmp_path / "model"
    folder.mkdir()
    write_source(str(folder), "/source")
    assert source_of(str(folder)) == "/source"
    os.chown(folder, 1234, 1234)
    with pytest.raises(ReplicaError, match="another user"):
        source_of(str(folder))
    assert list(replica_folder.listed(str(tmp_path))) == []
    assert place(tmp_path).path == str(folder)
