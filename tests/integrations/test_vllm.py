"""vLLM as released, from the slow filesystem, with the built wheel installed beside it.

Without the plugin means VLLM_PLUGINS= (an allow-list of none). Expectations about which files are
prefetched when are those of vLLM's own tests, but for the memory that there must be.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import MIB, Checkpoint, Engine, MakeMount, Served, make_checkpoint, resident_bytes
from nodes import (
    Nodes,
    check_that_a_node_learns,
    check_that_a_rank_gets_its_experts,
    check_that_a_replica_is_read,
    check_that_a_stage_gets_its_layers,
)

pytest_plugins = ["harness", "nodes"]

SIZE = 4
WITHOUT = {"VLLM_PLUGINS": ""}
FORMAT = ["--load-format", "shardahead"]
PREFETCH = ["--safetensors-load-strategy", "prefetch"]
LAZY = ["--safetensors-load-strategy", "lazy"]
THREADED = ["--model-loader-extra-config", '{"enable_multithread_load": true, "num_threads": 3}']
OURS = "Shardahead loads"
FUNCTIONS = [
    "safetensors_weights_iterator",
    "multi_thread_safetensors_weights_iterator",
    "pt_weights_iterator",
    "multi_thread_pt_weights_iterator",
    "_prefetch_all_checkpoints",
]


@pytest.fixture
def vllm(start_engine: Callable[..., Engine]) -> Engine:
    return start_engine("vllm", "vllm_ranks.py")


@pytest.fixture(scope="module")
def plain(start_engine: Callable[..., Engine], sharded: Checkpoint) -> dict[str, Any]:
    """What vLLM without the plugin gives."""
    engine = start_engine("vllm", "vllm_ranks.py")
    (rank,) = engine.run("load", [{"checkpoint": str(sharded.folder)}], env=WITHOUT)
    assert OURS not in rank.log
    found: dict[str, Any] = rank.result
    return found


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return (found["names"], found["sums"]) == (expected["names"], expected["sums"])


def same_but_for_order(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    pairs = [sorted(zip(one["names"], one["sums"], strict=True)) for one in (found, expected)]
    return pairs[0] == pairs[1]


# ---- loading ----


@pytest.mark.parametrize(
    "options", [FORMAT, PREFETCH, [], FORMAT + PREFETCH], ids=["format", "prefetch", "auto", "both"]
)
def test_ranks_get_the_same_and_each_byte_is_served_once(
    vllm: Engine,
    sharded: Checkpoint,
    make_mount: MakeMount,
    plain: dict[str, Any],
    options: list[str],
) -> None:
    mount = make_mount(sharded.folder, rate_mb_per_s=300, round_trip_ms=1)
    served = Served(mount, sharded)
    arguments = {"checkpoint": str(mount.mountpoint), "options": options}
    for rank in vllm.run("load", [arguments] * SIZE):
        assert same(rank.result, plain)
        assert OURS in rank.log
        assert "Loading safetensors checkpoint shards: 100% Completed | 6/6" in rank.log
    served.check()


@pytest.mark.parametrize("options", [THREADED, FORMAT + THREADED, FORMAT + PREFETCH + THREADED])
def test_several_threads_load_through_it_as_well(
    vllm: Engine,
    sharded: Checkpoint,
    make_mount: MakeMount,
    plain: dict[str, Any],
    options: list[str],
) -> None:
    mount = make_mount(sharded.folder, rate_mb_per_s=300, round_trip_ms=1)
    served = Served(mount, sharded)
    arguments = {"checkpoint": str(mount.mountpoint), "options": options}
    for rank in vllm.run("load", [arguments] * 2):
        assert same_but_for_order(rank.result, plain)
        assert OURS in rank.log
        assert "Multi-thread loading shards: 100% Completed | 6/6" in rank.log
    served.check()


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_options_of_the_load_format(
    vllm: Engine, sharded: Checkpoint, plain: dict[str, Any], mode: str
) -> None:
    extra = {"mode": mode, "max_workers": 2, "threads": 2, "block_size": "1MiB"}
    options = [*FORMAT, "--model-loader-extra-config", json.dumps(extra)]
    (rank,) = vllm.run("load", [{"checkpoint": str(sharded.folder), "options": options}])
    assert same(rank.result, plain)
    assert OURS in rank.log


def test_drop_after_drops_what_vllm_does_not_hold(
    vllm: Engine, sharded: Checkpoint, make_mount: MakeMount
) -> None:
    mount = make_mount(sharded.folder)
    options = [*FORMAT, "--model-loader-extra-config", '{"drop_after": true}']
    vllm.run("load", [{"checkpoint": str(mount.mountpoint), "options": options}])
    # vLLM's loop has the last tensor in hand, and with it the last shard.
    assert sum(resident_bytes(mount.mountpoint / p.name) for p in sharded.files[:-1]) == 0


def test_an_unknown_option_is_refused_by_name(vllm: Engine) -> None:
    options = [*FORMAT, "--model-loader-extra-config", '{"thraeds": 8}']
    (rank,) = vllm.run("refused", [{"options": options}])
    assert "has no key 'thraeds'" in rank.result
    assert "threads, block_size" in rank.result


@pytest.mark.parametrize("options", [[], LAZY, ["--safetensors-load-strategy", "eager"]])
def test_what_was_not_asked_for_stays_vllms(
    vllm: Engine,
    sharded: Checkpoint,
    make_mount: MakeMount,
    plain: dict[str, Any],
    options: list[str],
) -> None:
    folder = sharded.folder if not options else make_mount(sharded.folder).mountpoint
    (rank,) = vllm.run("load", [{"checkpoint": str(folder), "options": options}])
    assert same_but_for_order(rank.result, plain)
    assert OURS not in rank.log


def test_a_rank_that_wants_few_experts_fetches_few(
    vllm: Engine, sharded: Checkpoint, make_mount: MakeMount
) -> None:
    mount = make_mount(sharded.folder)
    arguments = {"checkpoint": str(mount.mountpoint), "options": FORMAT, "experts": [0]}
    (rank,) = vllm.run("load", [arguments])
    mount.wait_until_idle()
    assert mount.counters().bytes_served < 0.7 * sharded.size_bytes
    own = {"checkpoint": str(sharded.folder), "experts": [0]}
    (expected,) = vllm.run("load", [own], env=WITHOUT)
    assert same(rank.result, expected.result)
    assert 0 < expected.result["bytes"] < 0.7 * sharded.size_bytes


def test_secondary_weights_and_unused_shards(
    vllm: Engine, sharded: Checkpoint, tmp_path: Path
) -> None:
    second = make_checkpoint(tmp_path / "second", 4 * MIB, 2)
    arguments = {
        "checkpoint": str(sharded.folder),
        "second": str(second.folder),
        "unused": "model.layers.0.",
    }
    (expected,) = vllm.run("load", [arguments], env=WITHOUT)
    (found,) = vllm.run("load", [{**arguments, "options": FORMAT}])
    assert same(found.result, expected.result)
    assert any(name.startswith("second.") for name in found.result["names"])
    assert found.log.count(OURS) == 2


@pytest.mark.parametrize("share", [0.8, 0.5], ids=["a shard fits", "no shard fits the window"])
def test_with_little_memory_it_streams_instead_of_giving_up(
    vllm: Engine, sharded: Checkpoint, make_mount: MakeMount, plain: dict[str, Any], share: float
) -> None:
    mount = make_mount(sharded.folder, rate_mb_per_s=300, round_trip_ms=1)
    served = Served(mount, sharded)
    budget_bytes = int(share * sharded.size_bytes)
    in_order = max(path.stat().st_size for path in sharded.files) <= budget_bytes // 4
    arguments = {"checkpoint": str(mount.mountpoint), "options": PREFETCH}
    env = {"SHARDAHEAD_MEMORY_BUDGET_BYTES": str(budget_bytes)}
    # One rank: of several, one that does not get to run for 2.5 s is not waited for.
    (rank,) = vllm.run("load", [arguments], env=env)
    assert (same if in_order else same_but_for_order)(rank.result, plain)
    assert OURS in rank.log
    served.check()
    # What it had passed was dropped.
    resident = sum(resident_bytes(mount.mountpoint / path.name) for path in sharded.files)
    assert resident < 0.9 * sharded.size_bytes


def test_a_loop_that_is_left_ends_the_prefetch(
    vllm: Engine, sharded: Checkpoint, make_mount: MakeMount
) -> None:
    mount = make_mount(sharded.folder, rate_mb_per_s=4, round_trip_ms=1)
    # What is in flight comes all the same, at that rate.
    options = [*FORMAT, "--model-loader-extra-config", '{"inflight_bytes": "2MiB"}']
    arguments = {"checkpoint": str(mount.mountpoint), "options": options, "stop_after": 3}
    (rank,) = vllm.run("load", [arguments])
    assert len(rank.result["names"]) == 3
    assert rank.result["threads"] == 0
    assert mount.counters().bytes_served < sharded.size_bytes


def test_pt_checkpoints_load_beside_a_prefetch(
    vllm: Engine, make_mount: MakeMount, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    folder = tmp_path / "pt"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for number in range(3):
        torch.save({f"w{number}": torch.randn(10**6)}, folder / f"pytorch_model-{number}.bin")
    (expected,) = vllm.run("load", [{"checkpoint": str(folder)}], env=WITHOUT)
    mount = make_mount(folder, rate_mb_per_s=300, round_trip_ms=1)
    (found,) = vllm.run("load", [{"checkpoint": str(mount.mountpoint)}])
    assert same_but_for_order(found.result, expected.result)
    assert "prefetch:" in found.log


# ---- only what each node needs ----


def test_a_node_reads_what_its_ranks_have_used_before(
    vllm: Engine, llama: Checkpoint, make_mount: MakeMount, tmp_path: Path
) -> None:
    nodes = Nodes(vllm, llama, make_mount, tmp_path / "nodes")
    check_that_a_node_learns(nodes, llama, tmp_path / "profiles")


def test_a_stage_of_a_pipeline_reads_its_own_layers(
    vllm: Engine, llama: Checkpoint, make_mount: MakeMount, tmp_path: Path
) -> None:
    nodes = Nodes(vllm, llama, make_mount, tmp_path / "nodes")
    check_that_a_stage_gets_its_layers(nodes, llama)


def test_a_rank_of_expert_parallel_ones_reads_its_own_experts(
    vllm: Engine, mixtral: Checkpoint, make_mount: MakeMount, tmp_path: Path
) -> None:
    nodes = Nodes(vllm, mixtral, make_mount, tmp_path / "nodes")
    check_that_a_rank_gets_its_experts(nodes, mixtral, ["--enable-expert-parallel"])


def test_a_node_reads_its_replica(
    vllm: Engine, llama: Checkpoint, make_mount: MakeMount, tmp_path: Path
) -> None:
    nodes = Nodes(vllm, llama, make_mount, tmp_path / "nodes")
    asked = [[], ["--safetensors-load-strategy", "prefetch"]]
    check_that_a_replica_is_read(nodes, tmp_path / "local", asked)


# ---- vLLM's own prefetch ----


def test_nodes_warm_everything_once_whatever_the_global_rank(
    vllm: Engine, sharded: Checkpoint, make_mount: MakeMount, tmp_path: Path
) -> None:
    mounts = [make_mount(sharded.folder, rate_mb_per_s=300, round_trip_ms=1) for _ in range(2)]
    served = [Served(mount, sharded) for mount in mounts]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks, variables = [], []
    for rank in range(16):
        node, local = divmod(rank, 8)
        (tmp_path / f"node-{node}").mkdir(exist_ok=True)
        world = {"rank": rank, "size": 16, "port": port}
        ranks.append({"checkpoint": str(mounts[node].mountpoint), "world": world})
        variables.append(
            {
                "SHARDAHEAD_BOARD_FOLDER": str(tmp_path / f"node-{node}"),
                "LOCAL_RANK": str(local),
                "LOCAL_WORLD_SIZE": "8",
            }
        )
    found = [rank.result for rank in vllm.run("prefetch", ranks, env=variables)]
    assert all(report["complete"] for report in found)
    assert all(report["local_size"] == 8 for report in found)
    for one in served:
        one.check()
    for node in range(2):
        read = sum(report["read_bytes"] for report in found[8 * node : 8 * node + 8])
        assert read == sharded.size_bytes


@pytest.mark.parametrize("by", ["weight_utils", "importer"])
@pytest.mark.parametrize("environment", ["vllm", "vllm-previous"])
def test_vllms_prefetch_is_ours_wherever_it_was_imported(
    start_engine: Callable[..., Engine],
    sharded: Checkpoint,
    make_mount: MakeMount,
    environment: str,
    by: str,
) -> None:
    engine = start_engine(environment, "vllm_ranks.py")
    mount = make_mount(sharded.folder, rate_mb_per_s=300, round_trip_ms=1)
    served = Served(mount, sharded)
    rank = {"checkpoint": str(mount.mountpoint), "by": by}
    for one in engine.run("prefetch", [rank] * 2):
        assert one.result["complete"]
        assert one.result["partition"] == "dynamic"
    served.check()


def test_vllms_settings_of_its_prefetch_are_kept(vllm: Engine, sharded: Checkpoint) -> None:
    given = {"num_prefetch_threads": 3, "block_size": MIB}
    (default, changed) = vllm.run(
        "prefetch",
        [{"checkpoint": str(sharded.folder)}, {"checkpoint": str(sharded.folder), **given}],
    )
    assert (default.result["threads"], default.result["block_bytes"]) == (4, 16 * MIB)
    assert (changed.result["threads"], changed.result["block_bytes"]) == (3, MIB)


# ---- the plugin ----


def test_the_entry_point_replaces_each_function_once(vllm: Engine) -> None:
    once, often = vllm.run("look", [{"calls": 1}, {"calls": 3}])
    for rank in (once, often):
        assert rank.result["own"] == []
        assert rank.result["own_of_loader"] == []
        assert rank.result["wrapped"] == FUNCTIONS
        assert rank.result["formats"]


@pytest.mark.parametrize("env", [WITHOUT, {"VLLM_PLUGINS": "other"}, {"SHARDAHEAD_DISABLE": "1"}])
def test_switched_off_every_function_is_vllms_own(vllm: Engine, env: dict[str, str]) -> None:
    (rank,) = vllm.run("look", [{}], env=env)
    assert rank.result["own"] == FUNCTIONS
    assert rank.result["own_of_loader"] == FUNCTIONS[:-1]
    assert rank.result["formats"] == ("SHARDAHEAD_DISABLE" in env)


def test_unregistered_every_function_is_vllms_own_again(vllm: Engine) -> None:
    (rank,) = vllm.run("look", [{"unregister": True}])
    assert rank.result["own"] == FUNCTIONS
    assert rank.result["own_of_loader"] == FUNCTIONS[:-1]


def test_switched_off_the_load_format_is_vllms_default(
    vllm: Engine, sharded: Checkpoint, plain: dict[str, Any]
) -> None:
    arguments = {"checkpoint": str(sharded.folder), "options": FORMAT}
    (rank,) = vllm.run("load", [arguments], env={"SHARDAHEAD_DISABLE": "1"})
    assert same(rank.result, plain)
    assert OURS not in rank.log


@pytest.mark.parametrize("changed", ["_prefetch_all_checkpoints", "pt_weights_iterator"])
def test_another_shape_is_left_alone_with_one_warning(vllm: Engine, changed: str) -> None:
    (rank,) = vllm.run("look", [{"changed": changed, "calls": 3}])
    assert rank.result["own"] == FUNCTIONS
    assert not rank.result["formats"]
    assert rank.log.count("leaves vllm") == 1
    assert changed in rank.log


def test_the_release_before_is_known_as_well(
    start_engine: Callable[..., Engine],
    sharded: Checkpoint,
    make_mount: MakeMount,
    plain: dict[str, Any],
) -> None:
    engine = start_engine("vllm-previous", "vllm_ranks.py")
    (rank,) = engine.run("look", [{}])
    assert rank.result["version"] == "0.32.0"
    assert rank.result["wrapped"] == FUNCTIONS
    mount = make_mount(sharded.folder)
    served = Served(mount, sharded)
    arguments = {"checkpoint": str(mount.mountpoint), "options": FORMAT}
    for one in engine.run("load", [arguments] * 2):
        assert same(one.result, plain)
        assert OURS in one.log
    served.check()
