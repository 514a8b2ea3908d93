"""What a profile holds, what of two is kept, and that no bytes that anyone may write do harm."""

from __future__ import annotations

import base64
import json
import os
import random
import stat
import subprocess
import sys
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import KIB, MIB, NOBODY, REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from shardahead.prefetch.byte_ranges import common, in_grains, merged, total
from shardahead.prefetch.profile import (
    MAX_PROFILE_BYTES,
    MAX_RANGES,
    Doubt,
    Profile,
    ProfileError,
    decoded,
    encoded,
    next_profile,
)
from shardahead.prefetch.profile_file import profile_name, read_profile, write_profile

GRAIN = 64 * KIB
RANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20)), max_size=12)


def bytes_of(ranges: Any) -> set[int]:
    return {at for offset, length in ranges for at in range(offset, offset + length)}


def profile(*ranges: Any, size: int = 100 * GRAIN, **changes: Any) -> Profile:
    files = tuple((f"model-{i}.safetensors", size) for i in range(len(ranges)))
    made = Profile(files, "rank 0 of 8", GRAIN, tuple(map(merged, ranges)), (), "1.2.3")
    return replace(made, **changes)


@given(RANGES, RANGES)
def test_the_arithmetic_on_ranges(some: Any, others: Any) -> None:
    a, b = merged(some), merged(others)
    assert bytes_of(a) == bytes_of(some)
    assert total(a) == len(bytes_of(some))
    assert all(begin + length < then for (begin, length), (then, _) in pairwise(a))
    assert bytes_of(common(a, b)) == bytes_of(a) & bytes_of(b)
    grown = in_grains(a, 16, 225)
    assert bytes_of(grown) == {
        at for at in range(225) if {at // 16} & {x // 16 for x in bytes_of(a)}
    }


def test_what_was_touched_early_is_kept_with_it() -> None:
    def kept(content: Profile) -> Profile:
        written = encoded(content)
        assert written is not None
        assert decoded(written) == content
        return content

    early: Any = ((), ((0, GRAIN), (7 * GRAIN, 2 * GRAIN)))
    ranges = [[(0, 9 * GRAIN)], [(0, 9 * GRAIN)]]
    without = kept(profile(*ranges))
    first = kept(profile(*ranges, early=early))
    assert next_profile(without, first) == first
    # One that did not see it, or saw it as well.
    assert next_profile(first, without) is None
    assert next_profile(first, first) is None
    more = next_profile(first, profile([(0, 10 * GRAIN)], [(0, 9 * GRAIN)]))
    assert more is not None
    assert kept(more).early == early
    coarse = kept(first.coarser(4 * GRAIN))
    assert coarse.early == early


@given(st.lists(RANGES, max_size=4))
def test_a_profile_is_read_as_it_was_written(lists: Any) -> None:
    ranges = [in_grains(merged((GRAIN * o, GRAIN * n) for o, n in r), GRAIN, 10**8) for r in lists]
    made = profile(*ranges, size=10**8, order=tuple(range(len(lists)))[::-1])
    content = encoded(made)
    assert content is not None
    assert decoded(content) == made


def test_two_tebibytes_fit_into_a_mebibyte() -> None:
    """500 files, 90,000 tensors, of each an eighth."""
    rng = random.Random(1)
    size = 4 * 1024**3
    files = [
        merged((at, 4 * MIB) for at in sorted(rng.sample(range(0, size - 8 * MIB, GRAIN), 180)))
        for _ in range(500)
    ]
    content = encoded(profile(*files, size=size))
    assert content is not None
    assert len(content) <= MAX_PROFILE_BYTES
    assert decoded(content).grain_bytes == GRAIN


def test_what_is_too_large_is_kept_in_larger_grains() -> None:
    every_other = merged((at, GRAIN) for at in range(0, 4 * MAX_RANGES * GRAIN, 2 * GRAIN))
    content = encoded(profile(every_other, size=4 * MAX_RANGES * GRAIN))
    assert content is not None
    found = decoded(content)
    assert found.grain_bytes == 2 * GRAIN
    assert found.touched_bytes == 4 * MAX_RANGES * GRAIN


def test_what_fits_in_no_grain_is_not_kept() -> None:
    many = tuple((f"{'x' * 200}-{i}", 1) for i in range(6000))
    assert encoded(Profile(many, "", GRAIN, ((),) * 6000, (), "")) is None


def test_what_was_needed_again_is_kept_together_and_what_was_not_is_replaced() -> None:
    before = profile([(0, 80 * GRAIN)])
    assert next_profile(None, before) == before
    assert next_profile(before, profile([(0, 79 * GRAIN)])) is None
    more = next_profile(before, profile([(0, 78 * GRAIN), (90 * GRAIN, GRAIN)]))
    assert more is not None
    assert more.ranges == (((0, 80 * GRAIN), (90 * GRAIN, GRAIN)),)
    less = profile([(0, 60 * GRAIN)])
    assert next_profile(before, less) == less
    other = profile([(70 * GRAIN, 20 * GRAIN)])
    assert next_profile(before, other) == other


def test_what_was_looked_at_from_time_to_time_only_adds_but_where_the_profile_was_given_up() -> (
    None
):
    before, less = profile([(0, 80 * GRAIN)]), profile([(0, 8 * GRAIN)])
    kept = next_profile(before, less, sampled=True)
    assert kept is not None
    assert kept.ranges == before.ranges
    other = profile([(80 * GRAIN, 10 * GRAIN)])
    both = next_profile(before, other, sampled=True)
    assert both is not None
    assert both.ranges == (((0, 90 * GRAIN),),)
    assert next_profile(before, other, sampled=True, given_up=True) == other


def test_what_three_sampled_loads_in_a_row_left_is_not_wanted_any_more() -> None:
    def after(kept: Profile | None, *ranges: tuple[int, int]) -> Profile:
        found = next_profile(
            kept, profile([(GRAIN * o, GRAIN * n) for o, n in ranges]), sampled=True
        )
        assert found is not None
        content = encoded(found)
        assert content is not None
        assert decoded(content) == found
        return found

    before = after(None, (0, 80))
    first = after(before, (0, 40))
    second = after(first, (20, 30), (85, 1))
    assert (first.doubt, second.doubt) == (
        Doubt(1, (((0, 40 * GRAIN),),)),
        Doubt(2, (((0, 50 * GRAIN), (85 * GRAIN, GRAIN)),)),
    )
    assert first.ranges == before.ranges
    assert second.ranges == (((0, 80 * GRAIN), (85 * GRAIN, GRAIN)),)
    third = after(second, (0, 10))
    assert (third.ranges, third.doubt) == (((((0, 50 * GRAIN), (85 * GRAIN, GRAIN)),)), None)
    # One that touches nearly all of it ends the doubt.
    assert after(second, (0, 80)).doubt is None
    assert after(second, (0, 80)).ranges == second.ranges
    coarse = after(second.coarser(2 * GRAIN), (0, 40))
    assert coarse.ranges == (((0, 50 * GRAIN), (84 * GRAIN, 2 * GRAIN)),)


def test_a_doubt_that_does_not_fit_is_left_out() -> None:
    rng = random.Random(1)
    fewer, more = (
        merged((GRAIN * rng.randrange(10**7), GRAIN) for _ in range(count))
        for count in (100_000, MAX_RANGES + 20_000)
    )
    for doubted, fits in ((fewer, True), (more, False)):
        made = profile(fewer, size=10**7 * GRAIN, doubt=Doubt(1, (doubted,)))
        content = encoded(made)
        assert content is not None
        assert len(content) <= MAX_PROFILE_BYTES
        assert decoded(content) == (made if fits else replace(made, doubt=None))


def test_a_coarser_profile_is_compared_in_its_own_grains() -> None:
    before = profile([(0, 10 * GRAIN)]).coarser(8 * GRAIN)
    assert next_profile(before, profile([(0, 10 * GRAIN)])) is None


def document(**changes: Any) -> bytes:
    content = encoded(profile([(0, GRAIN)], [(GRAIN, 2 * GRAIN)], order=(1, 0)))
    assert content is not None
    made = {**json.loads(content), **changes}
    return json.dumps({k: v for k, v in made.items() if v is not None}).encode()


def packed(*numbers: int) -> str:
    content = bytearray()
    for number in numbers:
        while number > 0x7F:
            content.append(number & 0x7F | 0x80)
            number >>= 7
        content.append(number)
    return base64.b64encode(zlib.compress(bytes(content))).decode()


HOSTILE = {
    "empty": b"",
    "no JSON": b"\x00\xff",
    "half of one": document()[:100],
    "deep": b"[" * 500_000,
    "a long number": b'{"schema": ' + b"9" * 100_000 + b"}",
    "another version": document(schema="shardahead/profile/2"),
    "no schema": document(schema=None),
    "a list": b"[]",
    "no grain": document(grain_bytes=0),
    "true for a grain": document(grain_bytes=True),
    "a huge grain": document(grain_bytes=2**70),
    "no files": document(files=None),
    "files of numbers": document(files=[1, 2]),
    "a negative size": document(files=[["a", -1], ["b", 5]]),
    "order beyond": document(order=[0, 2]),
    "order twice": document(order=[0, 0]),
    "order of text": document(order=["0"]),
    "no ranges": document(ranges=None),
    "ranges of nothing": document(ranges=""),
    "no base64": document(ranges="\u00e9"),
    "no zlib": document(ranges="AAAA"),
    "cut": document(ranges=base64.b64encode(zlib.compress(b"\1\0\1\0")[:-3]).decode()),
    "a bomb": document(ranges=base64.b64encode(zlib.compress(bytes(300 * MIB), 9)).decode()),
    "a bomb of ranges": document(ranges=packed(2**40)),
    "a range too few": document(ranges=packed(1, 0, 1)),
    "a range too many": document(ranges=packed(1, 0, 1, 0, 7)),
    "an empty range": document(ranges=packed(1, 0, 0, 0)),
    "ranges that adjoin": document(ranges=packed(2, 0, 1, 0, 1, 0)),
    "beyond the end": document(ranges=packed(1, 100, 1, 0)),
    "far beyond the end": document(ranges=packed(1, 2**62, 2**62, 0)),
    "a number without end": document(
        ranges=base64.b64encode(zlib.compress(b"\xff" * 1000)).decode()
    ),
    "who is no text": document(who=7),
    "early of numbers": document(early=7),
    "early that is no base64": document(early="\u00e9"),
    "early beyond the end": document(early=packed(1, 100, 1, 0)),
    "early of one file": document(early=packed(0)),
    "a doubt of text": document(doubt="1"),
    "a doubt without loads": document(doubt={"ranges": packed(0, 0)}),
    "a doubt of no load": document(doubt={"loads": 0, "ranges": packed(0, 0)}),
    "a doubt of many loads": document(doubt={"loads": 3, "ranges": packed(0, 0)}),
    "a doubt without ranges": document(doubt={"loads": 1}),
    "a doubt beyond the end": document(doubt={"loads": 1, "ranges": packed(1, 100, 1, 0)}),
}


def test_more_than_little_is_not_asked_for_early() -> None:
    content = document(files=[["a", 2**40], ["b", 2**40]], early=packed(1, 0, 2000, 0))
    with pytest.raises(ProfileError, match="early is more than 67108864 bytes"):
        decoded(content)


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
def test_what_is_no_profile_is_refused_in_short(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        decoded(content)
    assert len(str(caught.value)) < 200
    path = tmp_path / "p"
    path.write_bytes(content)
    with pytest.raises(ProfileError):
        read_profile(str(path))


def test_only_a_file_of_this_user_is_read_and_no_more_than_its_limit(tmp_path: Path) -> None:
    good = encoded(profile([(0, GRAIN)]))
    assert good is not None
    path = tmp_path / "profile"
    assert read_profile(str(path)) is None
    path.write_bytes(good)
    assert read_profile(str(path)) is not None
    link = tmp_path / "link"
    link.symlink_to(path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    huge = tmp_path / "huge"
    huge.touch()
    os.truncate(huge, 1024**3)
    for other in (link, fifo, huge, tmp_path):
        with pytest.raises(ProfileError):
            read_profile(str(other))
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
        with pytest.raises(ProfileError, match="another user"):
            read_profile(str(path))
        os.chown(path, 0, 0)
    with pytest.raises(ProfileError, match="another checkpoint"):
        read_profile(str(path), [("other", 1)])


def test_a_profile_is_written_whole_and_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "p"
    old = tmp_path / ".p.host-1-1.unfinished"
    young = tmp_path / ".p.host-2-1.unfinished"
    for left in (old, young):
        left.write_bytes(b"x")
    os.utime(old, (1, 1))
    write_profile(str(path), profile([(0, GRAIN)]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == [young.name, "p"]
    with pytest.raises(FileNotFoundError):
        write_profile(str(tmp_path / "missing" / "p"), profile([(0, GRAIN)]))


def test_names_of_profiles() -> None:
    files = [("a", 1)]
    names = {
        profile_name(files, who)
        for who in (
            "rank 0 of 8",
            "rank_0 of 8",
            "rank 1 of 8",
            "key a/b",
            "key a_b",
            "key " + "x" * 200,
        )
    }
    assert len(names) == 6
    assert all(name.endswith(".profile") and "/" not in name and len(name) < 200 for name in names)
    assert profile_name([("a", 2)], "rank 0 of 8") not in names


def test_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    program = REPOSITORY / "tests" / "fuzz" / "fuzz_profile.py"
    done = subprocess.run(
        [sys.executable, program, "--runs", "3000", "--findings", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
