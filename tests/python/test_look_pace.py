"""How often a loader that is not ours is looked at."""

from __future__ import annotations

import pytest
from conftest import MIB

from shardahead.prefetch.look_pace import LookPace

IDLE = 400.0
LOOK = 0.0002


def pace(*seen: tuple[int, float]) -> LookPace:
    made = LookPace()
    for touched_bytes, seconds in seen:
        made.saw(touched_bytes, seconds)
    return made


@pytest.mark.parametrize("seen", [(), ((0, 1.0),), ((1 * MIB, 1.0), (0, 0.0))])
def test_a_slow_loader_is_looked_at_as_often_as_a_small_part_of_a_processor_allows(
    seen: tuple[tuple[int, float], ...],
) -> None:
    assert pace(*seen).pause_seconds(LOOK, IDLE) == pytest.approx(IDLE * LOOK)
    assert pace(*seen).pause_seconds(0.1, IDLE) == 1.0
    assert pace(*seen).pause_seconds(1e-6, IDLE) == 0.005


def test_a_fast_loader_is_looked_at_every_16_mib() -> None:
    fast = pace((100 * MIB, 0.25))
    assert fast.pause_seconds(LOOK, IDLE) == pytest.approx(0.04)
    # But not for more than a twentieth of a processor, nor without a pause.
    assert fast.pause_seconds(0.005, IDLE) == pytest.approx(0.1)
    assert pace((1000 * MIB, 0.01)).pause_seconds(LOOK, IDLE) == 0.005
    # Nor less often than a slow one.
    assert pace((20 * MIB, 1.0)).pause_seconds(LOOK, IDLE) == pytest.approx(IDLE * LOOK)
    assert pace((100 * MIB, 0.01)).pause_seconds(0.2, IDLE) == 1.0


def test_a_loader_that_pauses_is_soon_a_slow_one() -> None:
    pauses = []
    paused = pace((160 * MIB, 0.1))
    for _ in range(8):
        pauses.append(paused.pause_seconds(LOOK, IDLE))
        paused.saw(0, 0.05)
    assert pauses[:4] == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert pauses[4:] == pytest.approx([IDLE * LOOK] * 4)
