"""Loading from a slow filesystem: what crosses the link, and that it crosses it once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from conftest import (
    MIB,
    MakeMount,
    finish,
    refaulted_bytes,
    run_ranks,
    start_python,
    write_file,
)
from nursery import Nursery

from shardahead import evict, prefetch_files, residency
from shardahead.prefetch.options import PARTITIONS, Strategy

STRATEGIES = ["auto", "fadvise", "readahead", "pread"]
TENSORS_PER_SHARD = 8
PREFETCH = """
import json, sys, shardahead
strategy, partition, *files = sys.argv[1:]
handle = shardahead.prefetch_files(
    files, strategy=strategy, partition=partition, block_size=1024 * 1024
)
handle.wait()
print(json.dumps(handle.report().to_dict()))
"""
COMMAND = "import sys, shardahead.command.cli; sys.exit(shardahead.command.cli.main(sys.argv[1:]))"
LOAD = """
import hashlib, json, sys
import shardahead
weights = getattr(shardahead, sys.argv[1])(sys.argv[2], prefetch=sys.argv[3:] != ["plainly"])
found = hashlib.sha256()
for name, tensor in weights:
    found.update(name.encode())
    found.update(memoryview(tensor.numpy()))
report = weights.prefetch.report().to_dict() if weights.prefetch else None
print(json.dumps({"sha256": found.hexdigest(), "report": report}))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three files, none of them a whole number of pages or of requests."""
    for i in range(3):
        write_file(tmp_path / "source" / f"{i}.safetensors", 5 * MIB + 1000 * i + 1)
    return tmp_path / "source"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Four shards of 16 MiB, each of eight tensors."""
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    folder = tmp_path / "source"
    folder.mkdir()
    for i in range(4):
        generator = torch.Generator().manual_seed(i)
        tensors = {
            f"{i}.{j}": torch.randint(
                0, 256, (2 * MIB + j,), dtype=torch.uint8, generator=generator
            )
            for j in range(TENSORS_PER_SHARD)
        }
        save_file(tensors, folder / f"model-{i}.safetensors")
    return folder


def sha256_of(folder: Path) -> str:
    """The names and bytes of all tensors, as the safetensors library reads them."""
    from safetensors import safe_open

    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with safe_open(path, framework="pt") as shard:
            for name in shard.offset_keys():
                found.update(name.encode())
                found.update(memoryview(shard.get_tensor(name).numpy()))
    return found.hexdigest()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_prefetch_takes_each_byte_over_the_link_once(
    source: Path, make_mount: MakeMount, strategy: Strategy
) -> None:
    mount = make_mount(source)
    for expected in (size_of(source), 0):  # cold, then warm
        mount.reset()
        handle = prefetch_files(mount.mountpoint, strategy=strategy, block_size=MIB)
        handle.wait()
        assert handle.report().complete
        mount.wait_until_idle()
        assert mount.counters().bytes_served == expected


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("strategy", ["fadvise", "pread"])
def test_two_rank_processes_take_each_byte_over_the_link_once(
    source: Path, make_mount: MakeMount, strategy: Strategy, partition: str
) -> None:
    mount = make_mount(source, round_trip_ms=1)
    files = sorted(mount.mountpoint.glob("*.safetensors"))
    reports = run_ranks(PREFETCH, 2, strategy, partition, *files)
    assert all(report["complete"] for report in reports)
    mount.wait_until_idle()
    assert mount.counters().bytes_served == size_of(source)
    assert sum(file.resident_bytes or 0 for file in residency(mount.mountpoint)) == size_of(source)


def test_planning_and_looking_take_nothing_over_the_link(
    source: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(source)
    residency(mount.mountpoint)
    evict(mount.mountpoint)
    for command in ("plan", "status", "evict"):
        done = finish(start_python(COMMAND, command, mount.mountpoint))
        assert done.returncode == 0, done.stderr
    assert mount.counters().bytes_served == 0


def test_advice_puts_more_requests_in_flight_than_reading(
    source: Path, make_mount: MakeMount
) -> None:
    peaks = {}
    mount = make_mount(source, round_trip_ms=20)
    for strategy in ("pread", "fadvise", "readahead", "auto"):
        mount.evict_all()
        mount.reset()
        prefetch_files(mount.mountpoint, threads=1, strategy=strategy).wait()
        peaks[strategy] = mount.counters().peak_in_flight
    assert peaks["pread"] <= 3
    assert min(peaks["fadvise"], peaks["readahead"], peaks["auto"]) >= 6


@pytest.mark.parametrize(
    ("make", "partition"),
    [
        ("safetensors_weights_iterator", "block"),
        ("safetensors_weights_iterator", "dynamic"),
        ("buffered_multi_thread_safetensors_weights_iterator", "dynamic"),
    ],
)
def test_four_rank_processes_that_read_all_take_it_over_the_link_once(
    nursery: Nursery, checkpoint: Path, make_mount: MakeMount, make: str, partition: str
) -> None:
    expected = sha256_of(checkpoint)
    mount = make_mount(checkpoint, rate_mb_per_s=300, round_trip_ms=1)
    env = {"SHARDAHEAD_PARTITION": partition}
    before = refaulted_bytes()
    ranks = nursery.run_ranks(LOAD, 4, make, mount.mountpoint, env=env)
    mount.wait_until_idle()
    assert [rank["sha256"] for rank in ranks] == [expected] * 4
    for rank in ranks:
        assert rank["report"]["error_count"] == 0
        assert rank["report"]["local_size"] == 4
    served, total = mount.counters().bytes_served, size_of(checkpoint)
    assert served >= total
    if 0 < served - 1.01 * total < refaulted_bytes() - before:
        pytest.skip("the kernel reclaimed pages meanwhile, and they were read again")
    assert served <= 1.01 * total


def test_a_load_has_more_requests_in_flight_than_page_faults_have(
    nursery: Nursery, checkpoint: Path, make_mount: MakeMount
) -> None:
    # Not judged by major faults: the kernel counts those that meet its own readahead as minor.
    mount = make_mount(checkpoint, round_trip_ms=5)
    peaks = []
    for how in ([], ["plainly"]):
        mount.evict_all()
        mount.reset()
        nursery.run(LOAD, "safetensors_weights_iterator", mount.mountpoint, *how)
        peaks.append(mount.counters().peak_in_flight)
    assert peaks[0] >= 3 * peaks[1]


def test_a_rank_that_wants_few_tensors_takes_few_bytes(
    nursery: Nursery, checkpoint: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(checkpoint)
    script = """
import json, sys, shardahead
names = [f"{i}.3" for i in range(4)]
for name, tensor in shardahead.safetensors_weights_iterator(sys.argv[1], names=names):
    tensor.sum()
print(json.dumps(name))
"""
    assert nursery.run(script, mount.mountpoint) == "3.3"
    mount.wait_until_idle()
    wanted = 4 * (2 * MIB + 3)
    assert wanted < mount.counters().bytes_served < wanted + 4 * MIB < size_of(checkpoint) / 4


def test_a_mount_that_keeps_no_pages_still_gives_the_right_tensors(
    nursery: Nursery, checkpoint: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(checkpoint, keep_cache=False)
    found = nursery.run(LOAD, "safetensors_weights_iterator", mount.mountpoint)
    assert found["sha256"] == sha256_of(checkpoint)


def test_warm_says_where_a_mount_keeps_no_pages(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source, keep_cache=False)
    done = finish(start_python(COMMAND, "warm", "--json", mount.mountpoint))
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["keeps_pages"] is False
    assert document["left_out_bytes"] == size_of(source)
    assert "does not keep pages" in document["reason"]
    assert "kernel_cache" in document["reason"]
    assert document["reason"] in done.stderr
    assert mount.counters().bytes_served <= 64 * 1024  # a page, and once more


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_mount_without_page_cache_does_no_harm(
    source: Path, make_mount: MakeMount, strategy: Strategy
) -> None:
    mount = make_mount(source, direct_io=True)
    handle = prefetch_files(mount.mountpoint, strategy=strategy)
    handle.wait()
    report = handle.report()
    assert report.done
    assert report.planned_bytes == size_of(source)
    assert report.error_count == 0


def test_a_rank_that_overtakes_its_prefetch_reads_by_itself(
    nursery: Nursery, checkpoint: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(checkpoint)
    script = LOAD.replace("found = hash", "weights.prefetch.stop()\nfound = hash")
    found = nursery.run(script, "safetensors_weights_iterator", mount.mountpoint)
    assert found["sha256"] == sha256_of(checkpoint)
    assert found["report"]["cancelled"]
    mount.wait_until_idle()
    assert mount.counters().bytes_served <= 1.01 * size_of(checkpoint)
