"""The loop of `warm --keep` and `--follow` from within: its end while it still opens files, and
what it makes of rounds that are told to it.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, MIB, eventually, write_file
from test_warm_shortfalls import CLEAN, SHORT, bad

from shardahead import _core
from shardahead.checkpoint.shards import Shard, resolve_shards
from shardahead.command.cli import _parser
from shardahead.command.staying import Stay
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.options import resolve_options
from shardahead.prefetch.report import Report

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

        def __init__(self, _: bytes) -> None:
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


@contextmanager
def running(
    stay: Stay,
    shards: list[Shard],
    first: Report,
    unusable: OSError | None = None,
    too_few: str | None = None,
) -> Iterator[Callable[[], bool]]:
    """After a first prefetch with these findings; gives whether it has ended."""
    stay.begin(shards, resolve_options())
    stay.note_first(first, unusable, too_few)
    thread = threading.Thread(target=stay.run)
    thread.start()
    try:
        yield lambda: not thread.is_alive()
    finally:
        stay.stop()
        thread.join(HANG_SECONDS)


SOON = ("--follow-interval", "0.1")


def test_a_shard_that_failed_and_went_stands_in_the_way_no_longer(tmp_path: Path) -> None:
    shards = shards_in(tmp_path)
    stay = stay_of("--follow", *SOON, "--follow-idle", "0.1", tmp_path)
    with running(stay, shards, bad(shards[0].path)) as has_ended:
        eventually(lambda: stay.why_incomplete(), "it is not told")
        assert not has_ended()
        Path(shards[0].path).unlink()
        eventually(has_ended, "it waits for a shard that is not there")
    assert stay.why_incomplete() is None
    assert stay.figures.shards == 2


def test_what_was_left_out_is_told_though_others_came_since(tmp_path: Path) -> None:
    shards = shards_in(tmp_path)
    stay = stay_of("--follow", *SOON, tmp_path)
    with running(stay, shards, SHORT):
        write_file(Path(shards[0].path), MIB + 1)
        eventually(lambda: stay.figures.rounds >= 1, "it does not come")
    assert "left out" in str(stay.why_incomplete())


@pytest.mark.parametrize("found", ["a page of a file", "a page", "too few"])
def test_what_was_found_after_the_first_prefetch_holds_until_all_is_replaced(
    tmp_path: Path, found: str
) -> None:
    shards = shards_in(tmp_path, 1)
    too_few = "Input/output error" if found == "too few" else None
    path = shards[0].path if found == "a page of a file" else None
    unusable = None if too_few else OSError(errno.EIO, "Input/output error", path)
    stay = stay_of("--follow", *SOON, tmp_path)
    with running(stay, shards, CLEAN, unusable, too_few):
        eventually(lambda: stay.why_incomplete(), "it is not told")
        write_file(tmp_path / "b-1.safetensors", MIB)
        eventually(lambda: stay.figures.rounds >= 1, "what is new does not come")
        assert "Input/output error" in str(stay.why_incomplete())
        write_file(Path(shards[0].path), MIB + 1)
        eventually(lambda: stay.figures.rounds >= 2, "what is changed does not come")
        eventually(lambda: stay.why_incomplete() is None, "it is not over")
