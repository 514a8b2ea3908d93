"""All the ways in which a weight iterator ends: closed, dropped, by an error, with its process.

No thread of it is left. What it gives until then is in test_weights.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import weights_support
from conftest import KIB, eventually, finish, start_python, thread_ids, write_file
from weights_support import Bits, MakeIterator, bits, buffered, one_by_one, plainly, save_file, zoo

from shardahead import LoadProgress, WeightsIterator

iterate = weights_support.iterate
shards = weights_support.shards


def ends(before: set[int]) -> None:
    """Waits until no thread is left but those of before."""
    eventually(lambda: thread_ids() <= before, f"threads stay: {threading.enumerate()}")


def some(weights: WeightsIterator, count: int = 2) -> list[Bits]:
    return [bits(*next(weights)) for _ in range(count)]


def failing_consumer(weights: Iterator[Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        for i, _ in enumerate(weights):
            _ = 1 / (2 - i)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("window_bytes", [None, 64 * KIB])
def test_closed_or_dropped_early_its_threads_end(
    shards: list[Path], iterate: MakeIterator, started: bool, window_bytes: int | None
) -> None:
    for close in (True, False):
        before = thread_ids()
        weights = iterate(shards, window_bytes=window_bytes, block_size=64 * KIB)
        if started:
            some(weights)
        if close:
            weights.close()
            weights.close()
            assert list(weights) == []
        del weights
        ends(before)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("error", [None, ZeroDivisionError])
@pytest.mark.parametrize("way", [{}, {"mode": "pread"}, {"prefetch": False}])
def test_the_end_of_a_with_block_closes_it(
    shards: list[Path],
    iterate: MakeIterator,
    started: bool,
    error: type[Exception] | None,
    way: dict[str, Any],
) -> None:
    before = thread_ids()
    with suppress(ZeroDivisionError), iterate(shards, window_bytes=64 * KIB, **way) as weights:
        assert isinstance(weights, WeightsIterator)
        kept = next(weights) if started else None
        if error is not None:
            raise error
    with pytest.raises(StopIteration):
        next(weights)
    assert list(weights) == []
    if weights.prefetch is not None:
        assert weights.prefetch.cancelled
    with weights:
        weights.close()
    if kept is not None:
        assert bits(*kept) == plainly(*shards)[0]
    ends(before)


def test_the_public_names_are_these(shards: list[Path], iterate: MakeIterator) -> None:
    with iterate(shards) as weights:
        public = [name for name in dir(weights) if name[0] != "_"]
    assert public == ["close", "mode", "prefetch"]


def test_an_exception_in_the_consumer_ends_its_threads(
    shards: list[Path], iterate: MakeIterator
) -> None:
    before = thread_ids()
    failing_consumer(iterate(shards, window_bytes=64 * KIB, block_size=64 * KIB))
    ends(before)


def test_an_exception_in_progress_reaches_the_consumer(
    shards: list[Path], iterate: MakeIterator
) -> None:
    def refuse(_: LoadProgress) -> None:
        raise RuntimeError("enough")

    before = thread_ids()
    with pytest.raises(RuntimeError, match="enough"):
        list(iterate(shards, progress=refuse))
    ends(before)


@pytest.mark.parametrize("prefetch", [True, False])
def test_a_bad_shard_is_an_error_when_its_turn_comes(
    tmp_path: Path, iterate: MakeIterator, prefetch: bool
) -> None:
    good, bad = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_file(zoo(1), good)
    write_file(bad, 100 * KIB)
    before = thread_ids()
    weights = iterate(tmp_path, prefetch=prefetch)
    assert some(weights, len(zoo(1))) == plainly(good)
    with pytest.raises(ValueError, match=r"2\.safetensors'.*not a safetensors file"):
        next(weights)
    assert list(weights) == []
    del weights
    ends(before)


def test_a_held_iterator_does_not_hold_up_the_exit(shards: list[Path]) -> None:
    script = """
import sys, shardahead
make = getattr(shardahead, sys.argv[1])
weights = make(sys.argv[2], window_bytes=65536, block_size=65536)
print(next(weights)[0])
"""
    for make in (one_by_one, buffered):
        name = make.__name__
        done = finish(start_python(script, name, shards[0].parent))
        assert (done.returncode, done.stderr) == (0, "")
