"""What a loader touches ahead of the bytes around it: how it is seen, kept and asked for first."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import KIB, MIB, MakeMount, eventually, resident_bytes, write_file

from shardahead import Options, prefetching
from shardahead.prefetch.early_touches import GRAIN_BYTES, MAX_EARLY_BYTES, EarlyTouches, is_small
from shardahead.prefetch.profile_file import read_profile

SIZE_BYTES = 48 * MIB
STEP_BYTES = 4 * MIB
GRAINS = list(range(0, SIZE_BYTES, STEP_BYTES))


class Touched:
    """As much as a look sees of two files: (offset, length) in grains."""

    def __init__(self) -> None:
        self.found: list[list[tuple[int, int]]] = [[], []]

    @property
    def touched_bytes(self) -> int:
        return sum(length for ranges in self.found for _, length in ranges) * GRAIN_BYTES

    def ranges(self, index: int) -> list[tuple[int, int]]:
        return [(at * GRAIN_BYTES, length * GRAIN_BYTES) for at, length in self.found[index]]


def grains(early: Any) -> list[int]:
    assert all(length == GRAIN_BYTES for _, length in early)
    return [at // GRAIN_BYTES for at, _ in early]


def test_what_is_alone_at_first_and_not_in_the_end_is_early() -> None:
    early, touched = EarlyTouches(2), Touched()
    for seen in ([(0, 1)], [(0, 1), (10, 1)], [(0, 1), (10, 1), (30, 1)], [(0, 9), (10, 1)]):
        touched.found[1] = seen
        early.look(touched)  # type: ignore[arg-type]
    end = tuple((at * GRAIN_BYTES, n * GRAIN_BYTES) for at, n in ((0, 9), (10, 12), (30, 1)))
    # 30 is alone in the end as well: it has its place.
    assert grains(early.ranges(1, end)) == [0, 10]
    assert early.ranges(0, end) == ()
    assert early.ranges(1, ()) == ()


def test_the_last_grain_of_a_file_may_be_short() -> None:
    early, touched = EarlyTouches(2), Touched()
    touched.found[0] = [(3, 1)]
    early.look(touched)  # type: ignore[arg-type]
    assert early.ranges(0, ((GRAIN_BYTES, 2 * GRAIN_BYTES + 5),)) == ((3 * GRAIN_BYTES, 5),)


def test_a_loader_that_is_far_gone_begins_nothing() -> None:
    early, touched = EarlyTouches(2), Touched()
    touched.found[0] = [(0, MAX_EARLY_BYTES // GRAIN_BYTES), (5000, 1)]
    early.look(touched)  # type: ignore[arg-type]
    assert early.ranges(0, ((5000 * GRAIN_BYTES, 5 * GRAIN_BYTES),)) == ()


def test_no_more_is_asked_for_first_than_little() -> None:
    assert is_small([((0, MAX_EARLY_BYTES),), ()])
    assert not is_small([((0, MAX_EARLY_BYTES),), ((0, 1),)])


def load(path: Path, learn: Path, *, slowly: bool) -> None:
    """Touches the beginning of each tensor, as it were, before it reads any of them."""
    with (
        prefetching(path, learn=learn, learn_key="k", threads=1) as handle,
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content,
    ):
        for at in GRAINS:
            content[at]
            if slowly:
                time.sleep(0.02)  # to be seen
        eventually(lambda: handle.done, "the prefetch does not end")
        for at in range(0, SIZE_BYTES, 4 * KIB):
            content[at]
        time.sleep(0.05)


def test_what_was_touched_first_comes_first_the_next_time(
    tmp_path: Path, make_mount: MakeMount, profiles: Path
) -> None:
    write_file(tmp_path / "source" / "a.safetensors", SIZE_BYTES)
    mount = make_mount(tmp_path / "source")
    path = mount.mountpoint / "a.safetensors"
    load(path, profiles, slowly=True)

    def written() -> list[str]:
        return [name for name in os.listdir(profiles) if not name.startswith(".")]

    eventually(lambda: written(), "no profile is written")
    stat = os.stat(path)
    profile = read_profile(os.path.join(profiles, written()[0]), [(path.name, stat.st_size)])
    assert profile is not None
    begun = [at for at, _ in profile.early[0]]
    # Some may have been seen with what a fault maps around them.
    assert set(begun) <= set(GRAINS)
    assert len(begun) >= len(GRAINS) // 2

    mount.evict_all()
    mount.command("rate 4")
    far = [at for at in begun if at >= SIZE_BYTES // 2]
    assert far
    with prefetching(path, learn=profiles, learn_key="k", threads=1):

        def they_are_here() -> bool:
            return all(resident_bytes(path, at, 4 * KIB) for at in far)

        eventually(they_are_here, "what was touched first does not come")
        # Of the rest what had been asked for by then.
        assert resident_bytes(path, 0, SIZE_BYTES) < SIZE_BYTES // 2
    mount.command("rate 0")


@pytest.mark.parametrize("limit", [None, "1MB"])
def test_under_a_rate_limit_nothing_is_asked_for_first(
    tmp_path: Path, make_mount: MakeMount, profiles: Path, limit: str | None
) -> None:
    """Its own share of the rate is what a block has paid."""
    write_file(tmp_path / "source" / "a.safetensors", SIZE_BYTES)
    mount = make_mount(tmp_path / "source")
    path = mount.mountpoint / "a.safetensors"
    load(path, profiles, slowly=True)
    eventually(lambda: os.listdir(profiles), "no profile is written")
    mount.evict_all()
    options = Options(learn=str(profiles), learn_key="k", rate_limit=limit, threads=1)
    with prefetching(path, options=options) as handle:
        if limit is None:
            eventually(lambda: handle.done, "it does not end")
        else:
            eventually(lambda: handle.progress().done_bytes > 0, "nothing is read")
            assert resident_bytes(path, SIZE_BYTES // 2, SIZE_BYTES // 2) == 0
    assert handle.report().resident_bytes == 0
