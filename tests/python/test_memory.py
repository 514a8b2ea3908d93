"""The memory budget, and where a prefetch ends because of it, in a real cgroup where one can be.

The parsers and sums are tested in C++ (memory_budget_test.cpp).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import xxhash
from conftest import MakeMount, check_sum, make_cold, result_of, run_python, write_file

import shardahead
from shardahead import memory_budget, prefetch_files

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "compare"))
from cgroup import limit_file, memory_group, within

MIB = 1024**2


def test_the_budget_of_this_machine_says_where_it_comes_from() -> None:
    budget = memory_budget()
    assert budget.budget_bytes is not None
    assert budget.tightest is not None
    assert budget.tightest in budget.limits
    assert budget.budget_bytes + budget.reserve_bytes == budget.tightest.free_bytes
    assert budget.tightest.free_bytes == min(limit.free_bytes for limit in budget.limits)
    assert budget.tightest.source in budget.text()
    assert "/proc/meminfo" in [limit.source for limit in budget.limits]


def has_budget(monkeypatch: pytest.MonkeyPatch, budget_bytes: int) -> None:
    monkeypatch.setenv("SHARDAHEAD_MEMORY_BUDGET_BYTES", str(budget_bytes))


def test_without_a_consumer_it_fills_the_budget_and_says_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "a", 16 * MIB)
    make_cold(path)
    has_budget(monkeypatch, 4 * MIB)
    handle = prefetch_files(path, block_size=MIB)
    handle.wait()
    report = handle.report()
    check_sum(report)
    assert (report.window_bytes, report.window_source) == (4 * MIB, "memory")
    assert (report.read_bytes, report.left_out_bytes) == (4 * MIB, 12 * MIB)
    reason = "12.0 MiB left out, beyond the 4.00 MiB that fit in memory"
    assert report.incomplete_reason() == reason


@pytest.mark.parametrize(("given", "source"), [(0, "none"), (6 * MIB, "given")])
def test_a_window_that_was_given_goes_before_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int, source: str
) -> None:
    path = write_file(tmp_path / "a", 8 * MIB)
    has_budget(monkeypatch, MIB)
    handle = prefetch_files(path, block_size=MIB, window_bytes=given)
    handle.wait()
    report = handle.report()
    assert (report.window_bytes, report.window_source) == (given, source)
    assert report.left_out_bytes == (2 * MIB if given else 0)


def test_only_what_is_wanted_has_to_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "a", 8 * MIB)
    has_budget(monkeypatch, MIB)
    for length, window in ((8 * MIB, MIB), (MIB, 0)):
        handle = prefetch_files(path, spans={path: [(0, length)]})
        handle.wait()
        assert handle.report().window_bytes == window


@pytest.fixture
def group() -> Iterator[str]:
    """A memory cgroup with a limit of 256 MiB."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(memory_group(256))
        except OSError as error:
            pytest.skip(str(error))
        yield made


def run_in(group: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(within(group, command), capture_output=True, text=True, timeout=120)


WARM = (sys.executable, "-m", "shardahead", "warm", "--json")


def test_in_a_cgroup_half_the_size_warm_keeps_what_it_brought_in(
    group: str, tmp_path: Path
) -> None:
    files = [write_file(tmp_path / f"{i}.safetensors", 64 * MIB) for i in range(8)]
    for file in files:
        make_cold(file)
    for _ in range(2):  # the second is the warm restart, which must not be refused
        done = run_in(group, *WARM, *map(os.fspath, files))
        report = json.loads(done.stdout)
        assert done.returncode == 1
        assert report["window_source"] == "memory"
        assert 32 * MIB < report["window_bytes"] < 256 * MIB
        assert report["left_out_bytes"] > 0
        assert "--force reads on" in report["reason"]
        resident = sum(file.resident_bytes or 0 for file in shardahead.residency(files))
        assert resident > 0.9 * report["window_bytes"]


def test_force_goes_beyond_the_budget(group: str, tmp_path: Path) -> None:
    files = [write_file(tmp_path / f"{i}.safetensors", 64 * MIB) for i in range(5)]
    for file in files:
        make_cold(file)
    report = json.loads(run_in(group, *WARM, "--force", *map(os.fspath, files)).stdout)
    assert (report["window_bytes"], report["left_out_bytes"]) == (0, 0)
    assert report["read_bytes"] + report["resident_bytes"] == report["planned_bytes"]


LOAD = """
import json, sys, time
import shardahead, xxhash
weights = shardahead.safetensors_weights_iterator(sys.argv[1])
found = xxhash.xxh3_128()
for name, tensor in weights:
    time.sleep(float(sys.argv[2]))
    found.update(name.encode())
    found.update(memoryview(tensor.numpy()))
print(json.dumps({"xxh3": found.hexdigest(), "report": weights.prefetch.report().to_dict()}))
"""


@pytest.mark.parametrize(
    ("shards", "slower_seconds"),
    [(8, 0.0), (1, 0.0), (8, 0.08)],
    ids=["8 files", "1 file", "one rank slower"],
)
def test_ranks_in_a_cgroup_half_the_size_read_everything_once(
    group: str, tmp_path: Path, make_mount: MakeMount, shards: int, slower_seconds: float
) -> None:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    source = tmp_path / "source"
    source.mkdir()
    tensors_mib, total_mib = 32, 1536
    per_shard = total_mib // tensors_mib // shards
    found = xxhash.xxh3_128()
    for i in range(shards):
        tensors = {
            f"{i}.{j:03}": torch.full((tensors_mib * MIB,), i * per_shard + j, dtype=torch.uint8)
            for j in range(per_shard)
        }
        save_file(tensors, source / f"model-{i}.safetensors")
        for name, tensor in tensors.items():
            found.update(name.encode())
            found.update(memoryview(tensor.numpy()))
        del tensors, tensor
    make_cold(*source.iterdir())
    mount = make_mount(source, rate_mb_per_s=500)
    (Path(group) / limit_file(group)).write_text(str(1000 * MIB))
    command = [sys.executable, "-c", LOAD, os.fspath(mount.mountpoint)]
    ranks = [
        subprocess.Popen(
            within(group, [*command, str(pause_seconds)]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for pause_seconds in (0.0, slower_seconds)
    ]
    results = [result_of(rank) for rank in ranks]
    assert [result["xxh3"] for result in results] == [found.hexdigest()] * 2
    for report in (result["report"] for result in results):
        assert report["window_source"] == "memory"
        assert 0 < report["window_bytes"] < 500 * MIB
    assert sum(result["report"]["dropped_bytes"] for result in results) > 512 * MIB
    size_bytes = sum(path.stat().st_size for path in source.iterdir())
    served = mount.counters().bytes_served
    assert size_bytes <= served <= 1.03 * size_bytes


PEAK = """
import json, sys
import shardahead

def anonymous_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

peak = before = anonymous_bytes()
prefetch = sys.argv[2] == "on"
for name, tensor in shardahead.safetensors_weights_iterator(sys.argv[1], prefetch=prefetch):
    tensor.sum()
    peak = max(peak, anonymous_bytes())
print(json.dumps(peak - before))
"""


@pytest.mark.parametrize("strategy", ["auto", "pread"])
def test_a_prefetch_takes_next_to_no_anonymous_memory(tmp_path: Path, strategy: str) -> None:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "a.safetensors"
    save_file({f"{i:02}": torch.zeros(16 * MIB, dtype=torch.uint8) for i in range(16)}, path)
    peaks = {}
    for prefetch in ("off", "on"):
        make_cold(path)
        peaks[prefetch] = run_python(PEAK, path, prefetch, env={"SHARDAHEAD_STRATEGY": strategy})
    assert abs(peaks["on"] - peaks["off"]) <= 32 * MIB, peaks
