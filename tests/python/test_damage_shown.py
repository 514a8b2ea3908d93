"""What `status` and `doctor` say of shards that no loader takes, and that they bring in nothing, or
little, to know it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, PAGE_BYTES, make_cold, resident_bytes
from typed_support import run

#: A header that promises a MiB, and one that keeps that promise.
HEADER = json.dumps({"a": {"dtype": "U8", "shape": [MIB], "data_offsets": [0, MIB]}}).encode()
WHOLE = len(HEADER).to_bytes(8, "little") + HEADER + bytes(MIB)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards: one is whole, one cut off, one a pointer of git-lfs."""
    found = tmp_path / "m"
    found.mkdir()
    (found / "m-1.safetensors").write_bytes(WHOLE)
    (found / "m-2.safetensors").write_bytes(WHOLE[: MIB // 2])
    (found / "m-3.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    return found


def printed(*words: object) -> Any:
    status, out, err = run(*words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def damage_of(found: Any) -> list[bool]:
    return [file["damage"] is not None for file in found["files"]]


# ---- status ----


def test_status_names_the_first_and_counts_the_others(folder: Path) -> None:
    status, out, err = run("status", folder)
    assert (status, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("a load will fail: ")]
    assert f"'{folder}/m-2.safetensors': " in line
    assert line.endswith("; and 1 more that no loader takes")
    assert run("warm", "-q", folder)[2] == f"shardahead: incomplete: {line.partition(': ')[2]}\n"
    found = printed("status", folder)
    assert damage_of(found) == [False, True, True]
    assert "git-lfs" in found["files"][2]["damage"]
    assert found["reason"] is None


def test_status_reads_nothing_to_know_it(folder: Path) -> None:
    (folder / "m-4.safetensors").touch()
    make_cold(*folder.iterdir())
    found = printed("status", folder)
    assert damage_of(found) == [False, False, False, True]  # that one is empty is known at once
    assert sum(resident_bytes(path) for path in folder.iterdir()) == 0


def test_a_whole_checkpoint_is_called_nothing(folder: Path) -> None:
    path = folder / "m-1.safetensors"
    assert "fail" not in run("status", path)[1]
    assert damage_of(printed("status", path)) == [False]
    assert printed("doctor", path)["damage"] == []


def test_a_probe_asks_for_residency_alone(folder: Path) -> None:
    status, out, err = run("status", "--require", "100%", folder)
    assert (status, err) == (0, "")
    assert "fail" not in out
    assert damage_of(printed("status", "--require", "100%", folder)) == [False] * 3
    assert damage_of(printed("status", "--watch", "--require", "100%", folder)) == [False] * 3


def test_evict_does_not_tell_of_it(folder: Path) -> None:
    found = printed("evict", folder)
    assert all("damage" not in file for file in found["files"])


# ---- doctor ----


def test_doctor_advises_to_fetch_it_again(folder: Path) -> None:
    make_cold(*folder.iterdir())
    found = printed("doctor", folder)
    assert len(found["damage"]) == 2
    assert found["damage"][0].startswith(f"'{folder}/m-2.safetensors': ")
    problem = found["advice"][0]["problem"]
    assert problem.startswith(f"a load will fail: {found['damage'][0]}; and 1 more")
    assert problem.endswith("Fetch again what is damaged")
    page = " ".join(run("doctor", folder)[1].split())
    assert "1. a load will fail: " in page


def test_doctor_looks_at_headers_alone(folder: Path) -> None:
    """Of what it does not measure: here one file is resident, and the other too small for that."""
    path = folder / "m-2.safetensors"
    make_cold(path)
    run("doctor", "--read-bytes", str(PAGE_BYTES), path)
    assert 0 < resident_bytes(path) <= 4 * PAGE_BYTES


def test_doctor_that_may_read_nothing_judges_what_is_in_memory(folder: Path) -> None:
    (folder / "m-3.safetensors").read_bytes()
    cold = folder / "m-2.safetensors"
    make_cold(cold)
    (text,) = printed("doctor", "--read-bytes", "0", folder)["damage"]
    assert "m-3.safetensors" in text
    assert resident_bytes(cold) == 0
