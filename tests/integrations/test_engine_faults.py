"""What becomes of the engines' own loads, with the plugins, where something goes wrong.

A worker that is told to end while its weights come in has a handler that raises SystemExit, which
must get its turn in our waits; what hangs is ended by harness.LIMIT_SECONDS, and fails.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import LIMIT_SECONDS, MIB, Checkpoint, Engine, MakeMount

pytest_plugins = ["harness"]

STALLED_SECONDS = 10 * LIMIT_SECONDS
THREADED = ["--model-loader-extra-config", '{"enable_multithread_load": true, "num_threads": 3}']
FORMAT = ["--load-format", "shardahead"]
PREAD = ["--model-loader-extra-config", '{"mode": "pread"}']


@pytest.mark.parametrize(
    ("environment", "script", "options"),
    [
        ("vllm", "vllm_ranks.py", []),
        ("vllm", "vllm_ranks.py", FORMAT),
        ("vllm", "vllm_ranks.py", FORMAT + PREAD),
        ("vllm", "vllm_ranks.py", THREADED),
        ("sglang", "sglang_ranks.py", []),
        ("sglang", "sglang_ranks.py", THREADED),
    ],
)
def test_a_worker_ends_by_sigterm_in_the_middle_of_a_load(
    start_engine: Callable[..., Engine],
    sharded: Checkpoint,
    make_mount: MakeMount,
    environment: str,
    script: str,
    options: list[str],
) -> None:
    engine = start_engine(environment, script)
    mount = make_mount(sharded.folder, rate_mb_per_s=20, round_trip_ms=1)
    for path in sharded.files[len(sharded.files) // 2 :]:
        mount.stall(path.name, 8192, STALLED_SECONDS)  # behind what is asked of each shard first
    arguments = {"checkpoint": str(mount.mountpoint), "options": options}
    for rank in engine.run("terminated", [arguments] * 2):
        assert rank.result["ended"], rank.log
        assert rank.result["tensors"] > 0
        assert "Shardahead loads" in rank.log
    assert mount.counters().bytes_served < sharded.size_bytes


@pytest.mark.parametrize(
    ("environment", "script", "options"),
    [
        ("vllm", "vllm_ranks.py", []),
        ("vllm", "vllm_ranks.py", FORMAT),
        ("vllm", "vllm_ranks.py", THREADED),
        ("sglang", "sglang_ranks.py", []),
    ],
)
def test_of_a_shard_that_cannot_be_read_the_log_has_one_truth(
    start_engine: Callable[..., Engine],
    sharded: Checkpoint,
    make_mount: MakeMount,
    environment: str,
    script: str,
    options: list[str],
) -> None:
    engine = start_engine(environment, script)
    mount = make_mount(sharded.folder)
    path = mount.mountpoint / sharded.files[2].name
    mount.eio(path.name, 2 * MIB)
    arguments = {"checkpoint": str(mount.mountpoint), "options": options}
    (rank,) = engine.run("failing", [arguments])
    assert rank.result == ["OSError", 5, str(path)]
    (line,) = [line for line in rank.log.splitlines() if "prefetch incomplete" in line]
    assert "and the load has failed (OSError)" in line
    assert "goes on" not in rank.log
