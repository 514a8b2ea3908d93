"""benchmarks/compare: its arithmetic, options and texts. Loads nothing."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
COMPARE = REPOSITORY / "benchmarks" / "compare"
sys.path[:0] = [str(COMPARE), str(COMPARE.parent / "demo"), str(COMPARE.parent / "slowfs")]

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import wire  # noqa: E402
from cases import PRESETS, Case  # noqa: E402
from cgroup import memory_group, within  # noqa: E402
from cut import GIB, Wanted, of_experts, part_bytes, sliced, union_bytes  # noqa: E402
from job import METHODS, WRONG, Job, read_job  # noqa: E402
from launch import Outcome  # noqa: E402
from options import parse, shardahead_variables  # noqa: E402
from records import CaseResult, Load, MethodResult, link_seconds, make_load  # noqa: E402
from tables import summary, time_cell  # noqa: E402

REPORT = {"cpu_seconds": 0.25, "waited_seconds": 1.5}


def rank_result(rank: int, seconds: float, report: Any = None) -> dict[str, Any]:
    figures = {"major_faults": 3, "cpu_seconds": 0.5, "checksums": {"a": 1}}
    switches = {"voluntary_switches": 20, "involuntary_switches": 1}
    return {"rank": rank, "seconds": seconds, "report": report, **figures, **switches}


def case_result(*methods: MethodResult, **options: Any) -> CaseResult:
    case = Case("ranks", **options)
    result = CaseResult(case, "make compare", case.text(), GIB, GIB, 2.0, "slowfs")
    result.methods = list(methods)
    return result


# ---- arithmetic ----


def test_the_link_needs_the_bytes_at_its_rate_and_one_round_trip() -> None:
    assert link_seconds(600_000_000, 300, 10) == pytest.approx(2.01)
    assert link_seconds(600_000_000, None, 0) is None


def test_a_load_is_told_in_ratios() -> None:
    ranks = [rank_result(0, 2.0, REPORT), rank_result(1, 3.0, REPORT)]
    load = make_load(Outcome(3.0, ranks=ranks), 2 * GIB, 2.0, 3 * GIB, "")
    assert load.ratio == pytest.approx(1.5)
    assert load.served_ratio == pytest.approx(1.5)
    assert load.rank_seconds == [2.0, 3.0]
    assert load.switches == [21, 21]
    assert load.prefetch_cpu_s_per_gib == pytest.approx(0.25)
    assert load.waited_seconds == [1.5, 1.5]
    assert all("checksums" not in rank for rank in load.ranks)


def test_what_was_not_measured_is_none() -> None:
    load = make_load(Outcome(None, "more than 5 s"), GIB, 2.0, None, "")
    assert (load.seconds, load.ratio, load.served_ratio) == (None, None, None)
    assert load.prefetch_cpu_s_per_gib is None


@pytest.mark.parametrize("size", [1, 3, 4])
def test_slices_tile_every_tensor(size: int) -> None:
    tensors = sliced(
        {
            "first": Wanted((10, 7), 2),
            "norm": Wanted((10,), 2),
            "second": Wanted((6, 11), 1),
            "thin": Wanted((2, 2), 4),
            "scalar": Wanted((), 4),
        },
        size,
    )
    assert (tensors["first"].dim, tensors["second"].dim) == (0, 1)
    assert tensors["norm"].dim is None
    assert tensors["scalar"].dim is None
    assert (tensors["thin"].dim is None) == (size > 2)
    for tensor in (tensors["first"], tensors["second"]):
        whole = Wanted(tensor.shape, tensor.item_bytes).part_bytes(0, 1)
        assert sum(tensor.part_bytes(rank, size) for rank in range(size)) == whole
    assert part_bytes(tensors.values(), 0, 1) == 10 * 7 * 2 + 20 + 66 + 16 + 4


@pytest.mark.parametrize(("shape", "dim"), [((8, 6), 0), ((8, 6), 1), ((4, 3, 6), 1), ((5,), None)])
def test_ranges_hold_the_bytes_of_the_part(shape: tuple[int, ...], dim: int | None) -> None:
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.int16).reshape(shape)
    raw = numbers.numpy().tobytes()
    tensor = Wanted(shape, 2, dim, offset=10)
    for rank in range(3):
        part = numbers
        if dim is not None:
            first, last = tensor.bounds(rank, 3)
            part = numbers.narrow(dim, first, last - first)
        found = b"".join(raw[begin - 10 : end - 10] for begin, end in tensor.ranges(rank, 3))
        assert found == part.contiguous().numpy().tobytes()
        assert len(found) == tensor.part_bytes(rank, 3)


def test_the_union_counts_each_grain_once() -> None:
    grain = 64 * 1024
    rows = Wanted((8, grain), 1, 0)  # a row is a grain
    assert union_bytes([rows], [0], 4, 8 * grain) == 2 * grain
    assert union_bytes([rows], [0, 1, 0], 4, 8 * grain) == 4 * grain
    columns = Wanted((8, grain), 1, 1)
    assert union_bytes([columns], [0], 4, 8 * grain) == 8 * grain
    assert union_bytes([Wanted((10,), 1, None, offset=grain - 5)], [0], 1, 3 * grain) == 2 * grain
    assert union_bytes([Wanted((10,), 1, None, offset=grain)], [0], 1, grain + 10) == 10
    assert union_bytes([], [0], 1, 3 * grain) == 0


def test_experts_are_told_by_their_numbers() -> None:
    names = ["layers.0.experts.1.w", "layers.0.experts.11.w", "layers.1.experts.0.w", "norm"]
    found = of_experts({name: Wanted((1,), 1) for name in names}, 2)
    assert list(found) == [names[0], names[2]]


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    job = Job("shardahead threads=8", ["a"], {"t": Wanted((2, 3), 4, 1, 9)}, 2, "f", kill_rank=1)
    job.write(tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == job
    assert job.kind == "shardahead"


# ---- options ----


def test_presets_are_what_they_are_called() -> None:
    ranks = Case("ranks", 4, 8, 256, 300, 1)
    assert PRESETS["ranks"] == ranks
    assert PRESETS["one-file"] == Case("one-file", 4, 1, 2048, 300, 10)
    assert PRESETS["work"] == Case("work", 4, 16, 256, 500, 1, work_s_per_gib=1.5)
    assert PRESETS["slices"] == Case("slices", 4, 16, 256, 500, 1, slices=True)
    parts = replace(ranks, name="node-slices", slices=True, job_ranks=8)
    assert PRESETS["node-slices"] == parts
    assert PRESETS["node-experts"] == replace(ranks, name="node-experts", ranks=2, experts=2)
    assert PRESETS["kill"] == Case("kill", 4, 8, 256, 300, 1, kill_rank=0, kill_after=0.33)
    queue = replace(ranks, name="queue", max_background=12, congestion_threshold=9)
    assert PRESETS["queue"] == queue
    assert PRESETS["disk"] == Case("disk", 4, 8, 64, 100, 0.1, seek_ms=8)
    small = Case("small-tensors", 8, 2, 64)
    assert PRESETS["small-tensors"] == small
    window = replace(small, name="small-tensors-window", window_mib=64)
    assert PRESETS["small-tensors-window"] == window
    assert "8 ranks, a window of 64 MiB" in window.text()
    assert PRESETS["resident"].shards * PRESETS["resident"].size_mib == 10 * 1024
    assert parse(["--case", "all"]).cases == tuple(PRESETS.values())


def test_options_change_every_case() -> None:
    options = parse(["--case", "work", "--case", "kill", "--shards", "2", "--rounds", "5"])
    assert [case.name for case in options.cases] == ["work", "kill"]
    assert [case.shards for case in options.cases] == [2, 2]
    assert options.cases[0].work_s_per_gib == 1.5
    assert options.rounds == 5
    assert parse([]).cases == (Case(),)
    left_out = ("shardahead-before", "plain-narrow", *WRONG)
    assert parse([]).methods == tuple(name for name in METHODS if name not in left_out)
    # Whose profiles would be the wrong ones?
    assert {"plain-narrow", *WRONG} <= set(parse(["--case", "node-slices"]).methods)


def test_another_version_of_shardahead_is_a_method_where_its_interpreter_is_named() -> None:
    given = ["--python", "shardahead-before=other", "--methods", "shardahead,shardahead-before"]
    options = parse(given)
    assert options.methods == ("shardahead", "shardahead-before")
    assert options.pythons == {"shardahead-before": "other"}
    assert "shardahead-before" in parse(given[:2]).methods
    with pytest.raises(SystemExit):
        parse(given[2:])


def test_variants_of_shardahead_are_methods_of_their_own() -> None:
    given = ["--methods", "plain", "--shardahead-option", "partition=block,threads=8"]
    (plain, variant) = parse(given).methods
    assert (plain, variant) == ("plain", "shardahead partition=block,threads=8")
    expected = {"SHARDAHEAD_PARTITION": "block", "SHARDAHEAD_THREADS": "8"}
    assert shardahead_variables(variant) == expected
    assert shardahead_variables("plain") == {}
    assert shardahead_variables("shardahead", 64) == {"SHARDAHEAD_WINDOW_BYTES": "64MiB"}
    assert shardahead_variables(variant, 64) == expected | {"SHARDAHEAD_WINDOW_BYTES": "64MiB"}


def test_the_command_repeats_what_was_measured_and_not_where() -> None:
    options = parse(["--case", "kill", "--json", "f", "--rounds", "2", "--scratch=/x", "--slices"])
    command = options.command(options.cases[0])
    assert command == 'make compare COMPARE="--case kill --rounds 2 --slices"'


def test_interpreters_come_from_the_environments_that_are_there(tmp_path: Path) -> None:
    python = tmp_path / "peers" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    options = parse(["--environments", str(tmp_path), "--python", "runai=other"])
    assert options.pythons["fastsafetensors"] == str(python)
    assert options.pythons["runai"] == "other"
    assert "vllm" not in options.pythons


@pytest.mark.parametrize(
    "arguments",
    [
        ["--methods", "plain,none"],
        ["--case", "none"],
        ["--ranks", "0"],
        ["--kill-rank", "4"],
        ["--ranks", "1", "--kill-rank", "0"],
        ["--shardahead-option", "threads"],
        ["--python", "none=python3"],
        ["--case", "resident", "--folder", "x"],
        ["--window-mib", "0"],
        ["--job-ranks", "8"],
        ["--slices", "--job-ranks", "3"],
        ["--experts", "0"],
    ],
)
def test_options_without_sense_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


# ---- texts ----


def test_the_summary_says_medians_bytes_and_what_failed() -> None:
    loads = [Load(2.0 * r, ratio=r, served_ratio=1.0) for r in (1.1, 1.5, 1.2)]
    result = case_result(
        MethodResult("shardahead", loads=loads),
        MethodResult("plain", loads=[Load(8.0, ratio=4.0, served_ratio=2.5)]),
        MethodResult("vllm", loads=[Load(None, "more than 9 s")]),
        MethodResult("sglang", "No module named 'sglang'"),
        MethodResult("runai", loads=[Load(None, "rank 1 failed: no")]),
    )
    head, _, row = summary([result]).splitlines()
    order = ["plain", "sglang", "vllm", "runai", "shardahead"]
    assert [cell.strip() for cell in head.strip("|").split("|")][1:-1] == order
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == [
        "4.00, bytes x 2.50",
        "not installed",
        "more than 9 s",
        "failed",
        "1.20 (1.10-1.50)",
        "`make compare`",
    ]


def test_the_resident_case_is_told_in_milliseconds() -> None:
    method = MethodResult("shardahead", loads=[Load(0.0042)])
    assert time_cell(case_result(method, resident=True), method) == "4.20 ms"


# ---- bytes from the kernel ----

MOUNTSTATS = """device sysfs mounted on /sys with fstype sysfs
device other:/a mounted on /mnt/other with fstype nfs4 statvers=1.1
\tbytes:\t1 2 3 4 5 6 7 8
device server:/a mounted on /mnt/with\\040space with fstype nfs4 statvers=1.1
\tage:\t7
\tbytes:\t10 20 30 40 50 60 70 80
"""


def test_nfs_tells_what_the_server_sent() -> None:
    assert wire.nfs_bytes(MOUNTSTATS, "/mnt/with space") == 50
    with pytest.raises(ValueError, match="/mnt/none"):
        wire.nfs_bytes(MOUNTSTATS, "/mnt/none")


def test_a_block_device_tells_sectors() -> None:
    assert wire.block_bytes("  7 0 100 3 0 0 0 0 0 0 0") == 51_200


def test_where_the_kernel_counts_nothing_that_is_told() -> None:
    assert wire.counter_of(Path("/proc")) == (None, "not told: no counter for proc")


def test_without_a_limit_of_memory_the_ranks_run_where_the_caller_runs() -> None:
    with memory_group(None) as group:
        assert within(group, ["python", "a b"]) == ["python", "a b"]


def test_with_a_limit_the_command_runs_in_a_group_that_is_removed_again() -> None:
    with ExitStack() as stack:
        try:
            group = stack.enter_context(memory_group(64))
        except OSError as error:
            pytest.skip(str(error))
        assert (Path(group) / "cgroup.procs").read_text() == ""
        command = within(group, ["cat", "/proc/self/cgroup"])
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert Path(group).name in said
    assert not Path(group).exists()


def test_the_limit_of_memory_is_among_the_conditions() -> None:
    assert "2 ranks, 2750 MiB of memory" in PRESETS["memory"].text()
    with pytest.raises(SystemExit):
        parse(["--memory-mib", "0"])
