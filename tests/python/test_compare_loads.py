"""benchmarks/compare from end to end, with small checkpoints.

No figure is judged here, and nothing by a clock: only that each load got everything and was told.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
COMPARE = REPOSITORY / "benchmarks" / "compare"
sys.path[:0] = [str(COMPARE), str(COMPARE.parent / "slowfs")]

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import slowfs  # noqa: E402
from launch import probe  # noqa: E402

# Up to twenty processes import torch one after the other, a minute of processor: where others want
# the processor as well, that is long before it hangs.
RUN_SECONDS = 900
pytestmark = pytest.mark.timeout(RUN_SECONDS + 60)
SMALL = ["--ranks", "2", "--shards", "2", "--size-mib", "4", "--rounds", "1"]

needs_slowfs = pytest.mark.skipif(
    slowfs.unavailable_reason() is not None,
    reason=f"no slowfs here: {slowfs.unavailable_reason()}",
)


def run_compare(folder: Path, *arguments: str) -> dict[str, Any]:
    """The one case of a small run, as written to its JSON."""
    document = folder / "compare.json"
    places = ["--json", str(document), "--scratch", str(folder)]
    done = subprocess.run(
        [sys.executable, str(COMPARE / "compare.py"), *places, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(document.read_text())["cases"]
    assert list(folder.iterdir()) == [document], "the scratch folder stays clean"
    return case  # type: ignore[no-any-return]


def test_a_method_without_its_package_says_so() -> None:
    found = probe(sys.executable, "sglang")
    if not found["missing"]:
        pytest.skip("SGLang is installed here")
    assert "sglang" in found["missing"]
    assert "python" in found["versions"]


@needs_slowfs
def test_each_method_gets_everything(tmp_path: Path) -> None:
    methods = ["plain", "whole-file", "shardahead", "shardahead partition=block"]
    chosen = ["--methods", ",".join(methods[:3]), "--shardahead-option", "partition=block"]
    case = run_compare(tmp_path, *SMALL, *chosen, "--verify")
    assert [method["method"] for method in case["methods"]] == methods
    for method in case["methods"]:
        (load,) = method["loads"]
        assert load["problem"] == ""
        assert len(load["ranks"]) == len(load["rank_seconds"]) == 2
        assert len({rank["tensors"] for rank in load["ranks"]}) == 1
        for rank in load["ranks"]:
            assert rank["tensors"] > 0
            assert not rank["missing"]
            assert rank["bytes"] == rank["expected_bytes"]
        assert load["ratio"] == pytest.approx(load["seconds"] / case["link_seconds"])
        assert case["file_bytes"] <= load["served_bytes"] <= 1.02 * case["file_bytes"]
        assert method["verified"].endswith("bit-identical"), method["verified"]
    reports = [load["ranks"][0]["report"] for load in (m["loads"][0] for m in case["methods"])]
    assert [report and report["partition"] for report in reports] == [
        None,
        None,
        "dynamic",
        "block",
    ]


@needs_slowfs
def test_a_window_is_in_force_and_switches_are_counted(tmp_path: Path) -> None:
    chosen = ["--methods", "shardahead", "--window-mib", "1"]
    (method,) = run_compare(tmp_path, *SMALL, *chosen)["methods"]
    (load,) = method["loads"]
    assert load["problem"] == ""
    assert [rank["report"]["window_bytes"] for rank in load["ranks"]] == [2**20] * 2
    assert [rank["voluntary_switches"] > 0 for rank in load["ranks"]] == [True] * 2
    assert min(load["switches"]) > 0


@needs_slowfs
def test_slices_and_a_killed_rank(tmp_path: Path) -> None:
    chosen = ["--methods", "plain,shardahead", "--slices", "--kill-rank", "0", "--verify"]
    for method in run_compare(tmp_path, *SMALL, *chosen)["methods"]:
        (load,) = method["loads"]
        assert load["problem"] == ""
        (rank,) = load["ranks"]
        assert rank["rank"] == 1
        assert rank["bytes"] == rank["expected_bytes"] < load["served_bytes"]
        assert method["verified"].endswith("of 1 ranks are bit-identical"), method["verified"]


@needs_slowfs
def test_a_load_beyond_the_limit_is_ended_and_told(tmp_path: Path) -> None:
    slow = ["--rate-mb-per-s", "2", "--time-limit-s", "0.5", "--methods", "plain"]
    (method,) = run_compare(tmp_path, *SMALL, *slow)["methods"]
    (load,) = method["loads"]
    assert load["problem"] == "more than 0.5 s"
    assert load["seconds"] is None


def test_the_resident_case_reads_nothing(tmp_path: Path) -> None:
    small = ["--case", "resident", "--shards", "2", "--size-mib", "1", "--rounds", "2"]
    (method,) = run_compare(tmp_path, *small)["methods"]
    assert method["method"] == "shardahead"
    assert len(method["loads"]) == 2
    for load in method["loads"]:
        assert load["problem"] == ""
        assert load["ranks"][0]["report"]["read_bytes"] == 0
