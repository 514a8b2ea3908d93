"""Series: however long a load takes, few samples of it are kept, and they tell how it went on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardahead.prefetch.series import MOST_SAMPLES, Sample, Series


@pytest.mark.parametrize("count", [1, 2, 511, 512, 513, 5000, 100_000])
def test_few_are_kept_of_many(count: int) -> None:
    series = Series()
    for i in range(count):
        series.add(Sample(float(i), read_bytes=i))
    seconds = [sample.seconds for sample in series.samples]
    assert len(seconds) <= MOST_SAMPLES
    assert len(seconds) >= min(count, MOST_SAMPLES // 2)
    assert seconds[0] == 0
    assert seconds[-1] == count - 1
    assert seconds == sorted(set(seconds))


@given(st.floats(0.001, 1e5), st.integers(2, 40))
def test_what_is_due_covers_the_whole_time(whole_seconds: float, most: int) -> None:
    looks = 300  # often enough, as whoever watches a load does
    series = Series(most=most, interval_seconds=whole_seconds / looks)
    for look in range(looks + 1):
        seconds = whole_seconds * look / looks
        if series.is_due(seconds):
            series.add(Sample(seconds))
    times = [sample.seconds for sample in series.samples]
    assert times[0] == 0
    assert len(times) <= most
    gaps = [
        later - earlier for earlier, later in zip(times, [*times[1:], whole_seconds], strict=True)
    ]
    assert max(gaps) <= 2 * (series.interval_seconds + whole_seconds / looks)


def test_columns_are_of_one_length() -> None:
    series = Series()
    series.add(Sample(0.0))
    series.add(Sample(0.25, 5, 4, 3, 2, 1, 9))
    assert series.to_dict() == {
        "interval_seconds": series.interval_seconds,
        "seconds": [0.0, 0.25],
        "done_bytes": [0, 5],
        "read_bytes": [0, 4],
        "consumed_bytes": [0, 3],
        "claimed_bytes": [0, 2],
        "window_bytes": [0, 1],
        "inflight_bytes": [0, 9],
    }
