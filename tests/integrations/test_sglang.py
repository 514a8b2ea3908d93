"""SGLang as released, from the slow filesystem, with the built wheel installed beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Checkpoint, Engine, MakeMount, Served

pytest_plugins = ["harness"]

SIZE = 4


@pytest.fixture
def sglang(start_engine: Callable[..., Engine]) -> Engine:
    return start_engine("sglang", "sglang_ranks.py")


def load_by_ranks(engine: Engine, **arguments: Any) -> list[Any]:
    return [rank.result for rank in engine.run("load", [arguments] * SIZE)]


def test_four_ranks_load_through_their_own_loader(
    sglang: Engine, sharded: Checkpoint, make_mount: MakeMount
) -> None:
    mount = make_mount(sharded.folder, rate_mb_per_s=300, round_trip_ms=1)
    served = Served(mount, sharded)
    found = load_by_ranks(sglang, checkpoint=str(mount.mountpoint), plugin=False)
    assert all(one["names"] == found[0]["names"] for one in found)
    assert len(found[0]["names"]) > 1000
    served.check()
