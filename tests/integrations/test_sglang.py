"""SGLang as released, from the slow filesystem, with the built wheel installed beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Checkpoint, Engine, MakeMount, RankResult, Served, resident_bytes
from nodes import (
    Nodes,
    check_that_a_node_learns,
    check_that_a_rank_gets_its_experts,
    check_that_a_replica_is_read,
    check_that_a_stage_gets_its_layers,
    free_port,
)

pytest_plugins = ["harness", "nodes"]

RANKS = 4
PREFETCH = "--weight-loader-prefetch-checkpoints"
LINK = {"rate_mb_per_s": 300, "round_trip_ms": 1}
LOADED = "INFO shardahead: Shardahead loads"
ONE_THREAD, SEVERAL_THREADS = "Loading safetensors checkpoint shards", "Multi-thread loading shards"


def extra_config(**settings: Any) -> list[str]:
    return ["--model-loader-extra-config", json.dumps(settings)]


@pytest.fixture(params=["sglang", "sglang-previous"])
def sglang(request: pytest.FixtureRequest, start_engine: Callable[..., Engine]) -> Engine:
    return start_engine(request.param, "sglang_ranks.py")


@pytest.fixture
def newest(start_engine: Callable[..., Engine]) -> Engine:
    return start_engine("sglang", "sglang_ranks.py")


@pytest.fixture(scope="module")
def expected(start_engine: Callable[..., Engine], sharded: Checkpoint) -> dict[str, Any]:
    """What SGLang by itself loads."""
    (rank,) = load(start_engine("sglang", "sglang_ranks.py"), sharded.folder, 1, plugin=False)
    assert LOADED not in rank.log
    found: dict[str, Any] = rank.result
    return found


def load(
    engine: Engine,
    folder: Path,
    ranks: int = RANKS,
    *,
    env: dict[str, str] | None = None,
    **arguments: Any,
) -> list[RankResult]:
    return engine.run("load", [{"checkpoint": str(folder), **arguments}] * ranks, env=env)


def check_same(ranks: list[RankResult], expected: dict[str, Any]) -> None:
    assert len(expected["names"]) > 1000
    for rank in ranks:
        for what in ("names", "sums", "bytes"):
            assert rank.result[what] == expected[what], f"{what} differ\n{rank.log}"


@pytest.mark.parametrize(
    ("options", "bar"),
    [
        ([], SEVERAL_THREADS),
        ([PREFETCH], SEVERAL_THREADS),
        ([PREFETCH, *extra_config(enable_multithread_load=True, num_threads=8)], SEVERAL_THREADS),
        ([PREFETCH, *extra_config(enable_multithread_load=False)], ONE_THREAD),
    ],
)
def test_four_ranks_get_the_same_from_their_own_loader_and_the_link_carries_it_once(
    sglang: Engine,
    sharded: Checkpoint,
    expected: dict[str, Any],
    make_mount: MakeMount,
    options: list[str],
    bar: str,
) -> None:
    mount = make_mount(sharded.folder, **LINK)
    served = Served(mount, sharded)
    ranks = load(sglang, mount.mountpoint, options=options)
    check_same(ranks, expected)
    served.check()
    for rank in ranks:
        assert LOADED in rank.log
        assert bar in rank.log
        assert "WARNING shardahead" not in rank.log
        given = [json.loads(option) for option in options if option.startswith("{")]
        assert rank.result["extra_config"] == (given or [{}])[0]


def test_without_the_flag_local_files_are_left_to_sglang(
    newest: Engine, sharded: Checkpoint, expected: dict[str, Any]
) -> None:
    (unasked,) = load(newest, sharded.folder, 1)
    (asked,) = load(newest, sharded.folder, 1, options=[PREFETCH])
    check_same([unasked, asked], expected)
    assert LOADED not in unasked.log
    assert LOADED in asked.log


def test_without_mmap_sglang_reads_by_itself(
    newest: Engine, sharded: Checkpoint, expected: dict[str, Any]
) -> None:
    (rank,) = load(newest, sharded.folder, 1, options=["--weight-loader-disable-mmap", PREFETCH])
    check_same([rank], expected)
    assert LOADED not in rank.log


# Two nodes of two ranks each: what SGLang calls their local ranks, which are numbers of GPUs.
GPU_IDS = {
    "plain": [0, 1, 0, 1],
    "--gpu-id-step 2": [0, 2, 0, 2],
    "--base-gpu-id 4": [4, 5, 4, 5],
    "one visible device": [0, 0, 0, 0],
}


@pytest.mark.parametrize("gpu_ids", GPU_IDS.values(), ids=list(GPU_IDS))
def test_each_of_two_nodes_brings_in_everything_once(
    newest: Engine,
    sharded: Checkpoint,
    expected: dict[str, Any],
    make_mount: MakeMount,
    tmp_path: Path,
    gpu_ids: list[int],
) -> None:
    # A node is a board and a page cache: each has a folder for the one, a mount for the other.
    mounts = [make_mount(sharded.folder, **LINK) for _ in range(2)]
    counted = [Served(mount, sharded) for mount in mounts]
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks, env = [], []
    for rank, gpu_id in enumerate(gpu_ids):
        node = rank // 2
        board = tmp_path / f"board-{node}"
        board.mkdir(exist_ok=True)
        env.append({**job, "SHARDAHEAD_BOARD_FOLDER": str(board)})
        world = {"rank": rank, "size": len(gpu_ids), "local_rank": gpu_id}
        checkpoint = str(mounts[node].mountpoint)
        ranks.append({"checkpoint": checkpoint, "options": [PREFETCH], "world": world})
    check_same(newest.run("load", ranks, env=env), expected)
    for served in counted:
        served.check()


def test_the_page_cache_is_given_back_once_the_last_rank_has_loaded(
    newest: Engine, sharded: Checkpoint, expected: dict[str, Any], make_mount: MakeMount
) -> None:
    mount = make_mount(sharded.folder, **LINK)
    served = Served(mount, sharded)
    options = [PREFETCH, "--weight-loader-drop-cache-after-load"]
    check_same(load_in_a_world(newest, mount.mountpoint, options), expected)
    served.check()
    *passed, last = sorted(mount.mountpoint.glob("*.safetensors"))
    assert sum(resident_bytes(path) for path in passed) == 0
    # The loop of a model still has its last tensor, which a mapping of that shard holds.
    assert resident_bytes(last) <= last.stat().st_size + 4096


def test_what_does_not_fit_in_memory_streams_through_it_once(
    newest: Engine, sharded: Checkpoint, expected: dict[str, Any], make_mount: MakeMount
) -> None:
    mount = make_mount(sharded.folder, **LINK)
    served = Served(mount, sharded)
    env = {"SHARDAHEAD_MEMORY_BUDGET_BYTES": "48MiB"}
    check_same(load_in_a_world(newest, mount.mountpoint, [PREFETCH], env), expected)
    served.check()
    left = sum(resident_bytes(path) for path in mount.mountpoint.glob("*.safetensors"))
    assert left < sharded.size_bytes


@pytest.mark.parametrize("until", ["done", "stopped", "running"])
def test_a_prefetch_that_startup_has_begun_serves_the_load(
    sglang: Engine,
    sharded: Checkpoint,
    expected: dict[str, Any],
    make_mount: MakeMount,
    until: str,
) -> None:
    mount = make_mount(sharded.folder, **LINK)
    served = Served(mount, sharded)
    rank = {"checkpoint": str(mount.mountpoint), "until": until}
    ranks = sglang.run("load_started_early", [rank] * 2)
    check_same(ranks, expected)
    served.check()
    for one in ranks:
        assert LOADED in one.log
        early = one.result["early"]
        assert not early["failed"]
        assert early["cancelled"] is (until == "stopped")
        assert early["done"] or until == "running"
        assert one.result["errors"] == []


@pytest.mark.parametrize("by", ["loader", "weight_utils"])
def test_the_handle_is_the_one_that_sglang_expects(
    sglang: Engine, sharded: Checkpoint, make_mount: MakeMount, by: str
) -> None:
    mount = make_mount(sharded.folder, **LINK)
    served = Served(mount, sharded)
    rank = {"checkpoint": str(mount.mountpoint), "num_threads": 7, "by": by}
    env = {"SGLANG_PREFETCH_BLOCK_SIZE_MB": "8"}
    for one in sglang.run("prefetch", [rank] * 2, env=env):
        found = one.result
        assert (found["threads"], found["block_bytes"]) == (7, 8 * 1024**2)
        assert found["partition"] == "dynamic"
        assert found["done"]
        assert not found["failed"]
        assert found["handle_errors"] == []
    served.check()


def test_variables_of_shardahead_count_where_sglang_has_its_defaults(
    newest: Engine, sharded: Checkpoint
) -> None:
    env = {"SHARDAHEAD_THREADS": "3", "SHARDAHEAD_BLOCK_SIZE": "4MiB"}
    rank = {"checkpoint": str(sharded.folder), "num_threads": 4}
    (one,) = newest.run("prefetch", [rank], env=env)
    assert (one.result["threads"], one.result["block_bytes"]) == (3, 4 * 1024**2)


def test_a_shard_that_cannot_be_read_is_told_by_the_handle(
    newest: Engine, sharded: Checkpoint, make_mount: MakeMount
) -> None:
    mount = make_mount(sharded.folder)
    bad = mount.mountpoint / sharded.files[1].name
    mount.eio(bad, 0)
    rank = {"checkpoint": str(mount.mountpoint), "num_threads": 4}
    (one,) = newest.run("prefetch", [rank])
    assert one.result["failed"]
    assert {tuple(error) for error in one.result["handle_errors"]} == {(str(bad), "OSError")}
    assert len([line for line in one.log.splitlines() if line.startswith("WARNING")]) == 1


def test_a_prefetch_can_be_cancelled(
    newest: Engine, sharded: Checkpoint, make_mount: MakeMount
) -> None:
    mount = make_mount(sharded.folder, rate_mb_per_s=30, round_trip_ms=1)
    (one,) = newest.run("cancelled_prefetch", [{"checkpoint": str(mount.mountpoint)}])
    assert one.result == {
        "wait_error": "TimeoutError",
        "running": True,
        "done": True,
        "failed": False,
        "cancelled": True,
    }
    mount.wait_until_idle()
    assert mount.counters().bytes_served < sharded.size_bytes


def test_a_load_that_is_broken_off_leaves_nothing_running(
    newest: Engine, sharded: Checkpoint, make_mount: MakeMount
) -> None:
    mount = make_mount(sharded.folder, rate_mb_per_s=30, round_trip_ms=1)
    (one,) = newest.run("broken_off", [{"checkpoint": str(mount.mountpoint)}])
    assert one.result["during"] > 0
    assert one.result["after"] == 0


def test_errors_are_those_that_they_are_without_the_plugin(
    newest: Engine, sharded: Checkpoint
) -> None:
    (one,) = newest.run("errors", [{"checkpoint": str(sharded.folder)}])
    assert one.result == {"missing": "FileNotFoundError", "no threads": "ValueError"}


def test_wrong_variables_do_not_break_a_start(
    newest: Engine, sharded: Checkpoint, expected: dict[str, Any]
) -> None:
    env = {"SHARDAHEAD_THREADS": "none"}
    (rank,) = load(newest, sharded.folder, 1, options=[PREFETCH], env=env)
    check_same([rank], expected)
    assert "WARNING shardahead: SGLang loads by itself: SHARDAHEAD_THREADS" in rank.log


def test_all_functions_are_hooked_wherever_they_were_imported(sglang: Engine) -> None:
    (one,) = sglang.run("untouched", [{}])
    assert one.result["own"] == []
    assert len(one.result["all"]) == 7
    assert "WARNING" not in one.log


@pytest.mark.parametrize(
    "env",
    [{"SHARDAHEAD_DISABLE": "1"}, {"SGLANG_PLUGINS": "another"}],
    ids=["disabled", "unlisted"],
)
def test_where_it_is_not_wanted_every_function_is_sglangs_own(
    newest: Engine, sharded: Checkpoint, expected: dict[str, Any], env: dict[str, str]
) -> None:
    (one,) = newest.run("untouched", [{}], env=env)
    assert one.result["own"] == one.result["all"]
    (rank,) = load(newest, sharded.folder, 1, options=[PREFETCH], env=env)
    check_same([rank], expected)
    assert LOADED not in rank.log


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"drop": "_get_prefetch_block_size"}, "weight_utils._get_prefetch_block_size"),
        ({"without": "prefetch"}, "has no parameter disable_mmap, prefetch,"),
    ],
)
def test_a_version_that_has_changed_is_left_alone_with_one_warning(
    newest: Engine, change: dict[str, str], missing: str
) -> None:
    (one,) = newest.run("untouched", [change])
    assert one.result["own"] == one.result["all"]
    warnings = [line for line in one.log.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert f"sglang {one.result['version']}" in warnings[0]
    assert missing in warnings[0]


def test_a_node_reads_what_its_ranks_have_used_before(
    newest: Engine, llama: Checkpoint, make_mount: MakeMount, tmp_path: Path
) -> None:
    nodes = Nodes(newest, llama, make_mount, tmp_path / "nodes")
    check_that_a_node_learns(nodes, llama, tmp_path / "profiles")


def test_a_stage_of_a_pipeline_reads_its_own_layers(
    newest: Engine, llama: Checkpoint, make_mount: MakeMount, tmp_path: Path
) -> None:
    nodes = Nodes(newest, llama, make_mount, tmp_path / "nodes")
    check_that_a_stage_gets_its_layers(nodes, llama)


def test_a_rank_of_expert_parallel_ones_reads_its_own_experts(
    newest: Engine, mixtral: Checkpoint, make_mount: MakeMount, tmp_path: Path
) -> None:
    nodes = Nodes(newest, mixtral, make_mount, tmp_path / "nodes")
    check_that_a_rank_gets_its_experts(nodes, mixtral, ["--ep-size", "2"])


def test_a_node_reads_its_replica(
    sglang: Engine, llama: Checkpoint, make_mount: MakeMount, tmp_path: Path
) -> None:
    nodes = Nodes(sglang, llama, make_mount, tmp_path / "nodes")
    check_that_a_replica_is_read(nodes, tmp_path / "local", [[]])


def load_in_a_world(
    engine: Engine, folder: Path, options: list[str], env: dict[str, str] | None = None
) -> list[RankResult]:
    """By ranks that meet before any of them can be done."""
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **(env or {})}
    rank = {"checkpoint": str(folder), "options": options}
    worlds = [{"rank": i, "size": RANKS, "local_rank": i} for i in range(RANKS)]
    return engine.run("load", [{**rank, "world": world} for world in worlds], env=job)
