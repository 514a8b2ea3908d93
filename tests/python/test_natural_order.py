"""Natural order: numbers in names compare by value, and any two names have one order. No files."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardahead.checkpoint.folder_rule import natural_sort_key


@pytest.mark.parametrize(
    "ordered",
    [
        ["shard", "shard-1", "shard-2", "shard-10", "shard-100"],
        ["shard-01", "shard-1", "shard-02", "shard-2"],
        ["a-1-b-2", "a-1-b-10", "a-2-b-1", "a-10"],
        ["1", "2", "10", "a", "a1", "a1b", "b"],
        ["x0", "x00", "x1"],
        ["x" + "9" * 5000, "x1" + "0" * 5000],
        # Only 0-9 are digits: the rest is ordered by code point.
        ["x\u0661\u0660", "x\u0662"],
        ["x2", "x\u00b2"],
    ],
)
def test_natural_order(ordered: list[str]) -> None:
    for seed in range(5):
        shuffled = random.Random(seed).sample(ordered, len(ordered))
        assert sorted(shuffled, key=natural_sort_key) == ordered


paths = st.text() | st.text("01239aA-_./\u0663\u00b2", max_size=12)


@given(paths, paths, paths)
def test_natural_order_is_total(a: str, b: str, c: str) -> None:
    key_a, key_b, key_c = map(natural_sort_key, (a, b, c))
    assert (key_a == key_b) == (a == b)
    assert (key_a < key_b) + (key_b < key_a) + (a == b) == 1
    if key_a < key_b and key_b < key_c:
        assert key_a < key_c


@given(st.lists(paths), st.randoms())
def test_natural_order_does_not_depend_on_the_order_before(
    entries: list[str], rng: random.Random
) -> None:
    shuffled = rng.sample(entries, len(entries))
    assert sorted(shuffled, key=natural_sort_key) == sorted(entries, key=natural_sort_key)


@given(
    st.text("ab-./\u0663", max_size=4),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(0, 4),
    st.integers(0, 4),
    st.text("ab-./\u0663", max_size=4),
)
def test_natural_order_compares_numbers_by_value(
    before: str, a: int, b: int, zeros_a: int, zeros_b: int, after: str
) -> None:
    path_a = f"{before}{'0' * zeros_a}{a}{after}"
    path_b = f"{before}{'0' * zeros_b}{b}{after}"
    if a != b:
        assert (natural_sort_key(path_a) < natural_sort_key(path_b)) == (a < b)
    else:
        assert (natural_sort_key(path_a) < natural_sort_key(path_b)) == (path_a < path_b)
