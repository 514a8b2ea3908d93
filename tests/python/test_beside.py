"""A prefetch beside a loader of its own: how far that has got, and that it loads the same."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, eventually, make_cold, resident_bytes, thread_ids

import shardahead
from shardahead.prefetch.beside_loader import Finished, Place, place_of

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402

SIZES = [100 * MIB] * 5
NOT_BEGUN = (0, False)
HEADER = (64 * 1024, True)


@pytest.mark.parametrize(
    ("positions", "place"),
    [
        ([], Place(0, 0, 0)),
        ([HEADER], Place(0, 64 * 1024, 0)),
        ([(50 * MIB, True)], Place(0, 50 * MIB, 0)),
        ([(100 * MIB + 1, True)], Place(0, 100 * MIB, 0)),
        # The next one begun, the first still mapped or not.
        ([(100 * MIB, True), (20 * MIB, True)], Place(1, 20 * MIB, 0)),
        ([(100 * MIB, False), (20 * MIB, True)], Place(1, 20 * MIB, 1)),
        ([(100 * MIB, False), (90 * MIB, True), (9 * MIB, True)], Place(2, 9 * MIB, 1)),
        # Only part of a file is wanted.
        ([(30 * MIB, False), (20 * MIB, True)], Place(1, 20 * MIB, 1)),
        # One came and went between two looks; two are more than is believed.
        ([(100 * MIB, False), NOT_BEGUN, (20 * MIB, True)], Place(2, 20 * MIB, 2)),
        ([(100 * MIB, False), NOT_BEGUN, NOT_BEGUN, (9 * MIB, True)], Place(0, 100 * MIB, 0)),
        # Another order: it stays.
        ([NOT_BEGUN, NOT_BEGUN, NOT_BEGUN, NOT_BEGUN, (9 * MIB, True)], Place(0, 0, 0)),
        # All headers first.
        ([HEADER] * 5, Place(0, 64 * 1024, 0)),
        ([(50 * MIB, True), *[HEADER] * 4], Place(0, 50 * MIB, 0)),
    ],
)
def test_where_a_loader_is(positions: list[tuple[int, bool]], place: Place) -> None:
    seen = [*positions, *[NOT_BEGUN] * (len(SIZES) - len(positions))]
    assert place_of(seen, SIZES, 150 * MIB, 100 * MIB) == place


def test_a_file_too_large_to_be_held_is_not_followed_while_it_is_mapped() -> None:
    sizes, most = [100 * MIB, 300 * MIB, 100 * MIB], 200 * MIB
    passed = (100 * MIB, False)
    assert place_of([passed, (50 * MIB, True), NOT_BEGUN], sizes, MIB, most) == Place(1, 0, 1)
    assert place_of([passed, (50 * MIB, False), NOT_BEGUN], sizes, MIB, most) == Place(
        1, 50 * MIB, 1
    )
    assert place_of([passed, (300 * MIB, False), (5 * MIB, True)], sizes, MIB, most) == Place(
        2, 5 * MIB, 2
    )


def test_a_file_that_was_mapped_and_is_no_more_is_finished_after_two_looks() -> None:
    finished = Finished([100 * MIB, 100 * MIB, 100 * MIB])
    begun, read, header = (30 * MIB, True), (40 * MIB, False), HEADER
    assert finished.look([begun, read, header]) == [begun, read, header]
    unmapped = [(30 * MIB, False), (50 * MIB, False), (64 * 1024, False)]
    assert finished.look(unmapped) == unmapped
    done = [(100 * MIB, False), (50 * MIB, False), (64 * 1024, False)]
    assert finished.look(unmapped) == done
    assert finished.look([begun, *unmapped[1:]])[0] == begun  # mapped again


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("checkpoint")
    paths = [folder / f"model-{i}.safetensors" for i in range(6)]
    for i, path in enumerate(paths):
        generator = torch.Generator().manual_seed(i)
        save_file(
            {
                f"{i}.{j}": torch.randint(
                    0, 256, (2 * MIB + j,), dtype=torch.uint8, generator=generator
                )
                for j in range(8)
            },
            path,
        )
    return paths


def load(paths: list[Path], after_shard: Any = lambda _: None, pause_seconds: float = 0.0) -> str:
    """The sha256 of all tensors, read by the safetensors library alone."""
    found = hashlib.sha256()
    for index, path in enumerate(paths):
        with safetensors.safe_open(path, framework="pt") as shard:
            for name in shard.offset_keys():
                time.sleep(pause_seconds)
                found.update(name.encode())
                found.update(memoryview(shard.get_tensor(name).numpy()))
        after_shard(index)
    return found.hexdigest()


def test_what_fits_is_brought_in_whole(shards: list[Path]) -> None:
    before = thread_ids()
    make_cold(*shards)
    with shardahead.prefetching(shards[0].parent) as handle:
        handle.wait()
        assert [resident_bytes(path) for path in shards] == [p.stat().st_size for p in shards]
        assert handle.report().window_bytes == 0
    eventually(lambda: thread_ids() <= before, "threads stay")


def test_where_memory_is_short_it_follows_the_loader(
    shards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(shards)
    make_cold(*shards)
    monkeypatch.setenv("SHARDAHEAD_MEMORY_BUDGET_BYTES", str(64 * MIB))
    monkeypatch.setenv("SHARDAHEAD_BLOCK_SIZE", str(MIB))

    def goes_on(index: int) -> None:
        """The next shard begins to come in: the loader was seen to have passed this one."""
        if index + 1 < len(shards):
            eventually(lambda: resident_bytes(shards[index + 1]) > 0, "it does not follow")
        if index + 2 < len(shards):
            assert resident_bytes(shards[index + 2]) == 0

    with shardahead.prefetching(shards[0].parent) as handle:
        assert load(shards, goes_on, 0.02) == expected  # longer in a file than between two looks
        report = handle.report()
    assert report.window_source == "memory"
    assert report.window_bytes == 4 * MIB
    assert report.refetched_bytes == 0


def test_a_loader_that_is_not_seen_gets_the_beginning_and_what_it_reads(
    shards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(shards)
    make_cold(*shards)
    monkeypatch.setenv("SHARDAHEAD_MEMORY_BUDGET_BYTES", str(64 * MIB))
    with shardahead.prefetching(shards[0].parent):
        assert load(shards[::-1]) == load(shards[::-1])
    assert load(shards) == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_of_the_loader_ends_the_prefetch(
    shards: list[Path], error: type[BaseException]
) -> None:
    before = thread_ids()
    with pytest.raises(error), shardahead.prefetching(shards[0].parent) as handle:
        raise error
    assert handle.cancelled or handle.done
    eventually(lambda: thread_ids() <= before, "threads stay")


def test_wrong_arguments_fail_before_any_thread_starts(shards: list[Path]) -> None:
    before = thread_ids()
    with pytest.raises(ValueError, match="threads"), shardahead.prefetching(shards, threads=0):
        pass
    with pytest.raises(FileNotFoundError), shardahead.prefetching(shards[0].parent / "missing"):
        pass
    assert thread_ids() == before
