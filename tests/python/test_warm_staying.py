"""The loop of `warm --keep` and `--follow` from within: its end while it still opens files, and what
it makes of rounds that are told to it.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, MIB, write_file

from shardahead import _core
from shardahead.checkpoint.shards import Shard, resolve_shards
from shardahead.command.cli import _parser
from shardahead.command.staying import Stay
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.options import resolve_options

ALONE = LocalTopology(0, 1, "told")


def shards_in(folder: Path, count: int = 3) -> list[Shard]:
    paths = [write_file(folder / f"a-{n}.safetensors", MIB) for n in range(count)]
    return resolve_shards([str(path) for path in paths])


def stay_of(*words: object, where: LocalTopology = ALONE) -> Stay:
    """As far as it is before the first prefetch."""
    stay = Stay(_parser().parse_args(["warm", *map(str, words)]))
    stay.find_shards(where)
    return stay


def test_it_can_be_stopped_while_it_opens_what_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever counts then finds a file more before it has counted all; and the open may hang."""
    shards = shards_in(tmp_path)
    opened, is_counted, goes_on = threading.Event(), threading.Event(), threading.Event()

    class File:
        size_bytes = MIB
        number = 0

        def __init__(self, path: bytes) -> None:
            File.number += 1
            if File.number == 2:
                opened.set()
                assert goes_on.wait(HANG_SECONDS)
            elif File.number == 3:
                is_counted.set()

        def resident_bytes(self) -> int:
            goes_on.set()
            assert is_counted.wait(HANG_SECONDS)
            return MIB

    monkeypatch.setattr(_core, "KeptFile", File)
    stay = stay_of("--keep", tmp_path)
    thread = threading.Thread(target=stay.begin, args=(shards, resolve_options()))
    thread.start()
    assert opened.wait(HANG_SECONDS)
    try:
        stay.stop()
    finally:
        goes_on.set()
        thread.join(HANG_SECONDS)
    stay.stop()
    assert stay.figures.kept_bytes == stay.figures.resident_bytes == 3 * MIB
