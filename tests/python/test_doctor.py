"""What `shardahead doctor` finds here: limits of the process, and files on real mounts.

What it makes of it is in test_advice.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MIB,
    NOBODY,
    PAGE_BYTES,
    MakeMount,
    finish,
    make_cold,
    resident_bytes,
    start_python,
    write_file,
)

from shardahead import PrefetchHandle, prefetch_files
from shardahead.checkpoint.shards import resolve_shards
from shardahead.command import measure as measure_module
from shardahead.node.limits import PidsLimit, pids_limit, seccomp_mode
from shardahead.prefetch.start import start_prefetch

COMMAND = "import sys, shardahead.command.cli; sys.exit(shardahead.command.cli.main(sys.argv[1:]))"
AS_NOBODY = f"""
import os, sys, shardahead.command.cli
import locale  # which argparse asks for late: nobody may have no way to the interpreter's folder
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(shardahead.command.cli.main(sys.argv[1:]))
"""


# ---- limits ----


def test_seccomp_mode() -> None:
    assert seccomp_mode("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n") == "filter"
    assert seccomp_mode("Seccomp:\t0\n") == "none"
    assert seccomp_mode("") == "unknown"


@pytest.mark.parametrize(
    ("cgroup", "mounted"), [("0::/a/b\n", ""), ("9:pids:/a/b\n0::/\n", "pids")]
)
def test_the_tightest_pids_limit_of_all_groups_above(
    tmp_path: Path, cgroup: str, mounted: str
) -> None:
    base = tmp_path / "sys/fs/cgroup" / mounted
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for folder, most, used in (("a/b", "max", "3"), ("a", "50", "40"), ("", "500", "40")):
        (base / folder).mkdir(parents=True, exist_ok=True)
        (base / folder / "pids.max").write_text(most + "\n")
        (base / folder / "pids.current").write_text(used + "\n")
    source = "/".join(filter(None, ["/sys/fs/cgroup", mounted, "a"]))
    assert pids_limit(tmp_path) == PidsLimit(source, 50, 40)
    assert pids_limit(tmp_path / "nothing") is None


# ---- on real mounts ----


def run_doctor(*arguments: Any, status: int = 0, env: dict[str, str] | None = None) -> str:
    done = finish(start_python(COMMAND, "doctor", *arguments, env=env))
    assert done.returncode == status, done.stderr
    return done.stdout


def test_a_checkpoint_on_this_disk(tmp_path: Path) -> None:
    paths = [write_file(tmp_path / f"{i}.safetensors", 16 * MIB) for i in range(3)]
    make_cold(*paths)
    (found,) = json.loads(run_doctor("--json", tmp_path))["mounts"]
    measurement = found["measurement"]
    if found["mount"]["mount_class"] == "memory":
        pytest.skip("the temporary folder is in memory")
    assert (found["files"], found["size_bytes"], found["untold"]) == (3, 48 * MIB, 0)
    assert measurement["reason"] == ""
    assert measurement["latency_seconds"] > 0
    rates = [measurement[name] for name in ("one_stream", "streams", "plain")]
    assert [each["threads"] for each in rates] == [1, 4, 1]
    assert all(each["seconds"] > 0 and each["error"] == "" for each in rates)
    assert 24 * MIB <= measurement["read_bytes"] <= 48 * MIB
    assert measurement["kept_bytes"] >= measurement["read_bytes"] * 0.9
    for path in paths:
        path.read_bytes()
    text = run_doctor(tmp_path)
    assert "measured    not measured: all of it is in memory" in text
    assert "1 stream" not in text
    assert "shardahead evict" in text


def test_no_more_is_read_than_was_allowed(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.safetensors", 64 * MIB)
    for allowed, status in (("0", "0 bytes were allowed"), ("1MiB", "no rates: ")):
        make_cold(path)
        assert status in run_doctor("--read-bytes", allowed, path)
        assert resident_bytes(path) <= 4 * MIB
    make_cold(path)
    env = {"SHARDAHEAD_DISABLE": "1"}
    assert "not measured: SHARDAHEAD_DISABLE is set" in run_doctor(path, env=env)
    assert resident_bytes(path) == 0


def test_a_limit_of_the_rate_is_not_taken_for_the_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "a.safetensors", 16 * MIB)
    make_cold(path)
    monkeypatch.setenv("SHARDAHEAD_RATE_LIMIT", "1TB/s")  # not so low that it would take for ever
    started = []

    def recording(*arguments: Any, **keywords: Any) -> PrefetchHandle:
        started.append(start_prefetch(*arguments, **keywords))
        return started[-1]

    monkeypatch.setattr(measure_module, "start_prefetch", recording)
    found = measure_module.measure(resolve_shards([path]), 16 * MIB)
    if not started:
        pytest.skip(f"nothing can be measured here: {found.reason}")
    assert {handle.report().rate_limit_bytes_per_s for handle in started} == {0}
    # As every other prefetch has it.
    with prefetch_files([path]) as handle:
        handle.wait()
    assert handle.report().rate_limit_bytes_per_s == 10**12


def test_a_wrong_setting_is_named_before_anything_is_read(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.safetensors", 16 * MIB)
    make_cold(path)
    done = finish(start_python(COMMAND, "doctor", path, env={"SHARDAHEAD_MODE": "fast"}))
    assert (done.returncode, done.stdout) == (2, "")
    assert "SHARDAHEAD_MODE must be one of" in done.stderr
    assert resident_bytes(path) == 0


def test_settings_and_files_as_they_were_typed(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.safetensors", 16 * MIB)
    path.read_bytes()
    env = {"SHARDAHEAD_THREADS": "8", "SHARDAHEAD_TREADS": "9", "LOCAL_RANK": "0"}
    env["LOCAL_WORLD_SIZE"] = "2"
    document = json.loads(run_doctor("--json", "--include", "*.safetensors", tmp_path, env=env))
    origins = {each["name"]: (each["value"], each["origin"]) for each in document["settings"]}
    assert origins["threads"] == (8, "SHARDAHEAD_THREADS")
    assert origins["block_size"] == (16 * MIB, "default")
    assert origins["local_rank"] == (0, "LOCAL_RANK and LOCAL_WORLD_SIZE")
    assert origins["local_size"] == (2, "LOCAL_RANK and LOCAL_WORLD_SIZE")
    assert document["unread_variables"] == [
        {"name": "SHARDAHEAD_TREADS", "meant": "SHARDAHEAD_THREADS"}
    ]
    (found,) = document["mounts"]
    if found["measurement"]["outcome"] == "all_resident":
        evict = f"shardahead evict '--include=*.safetensors' {tmp_path}"
        assert evict in [command for each in document["advice"] for command in each["commands"]]


def test_pages_between_resident_ones_are_not_said_to_be_unreadable(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.safetensors", 4 * MIB)
    make_cold(path)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no readahead
        for offset in range(0, 4 * MIB, 64 * 1024):
            os.pread(file.fileno(), 1, offset)
        if not 0 < resident_bytes(path) < 4 * MIB:
            pytest.skip("the whole file came")
        (found,) = json.loads(run_doctor("--json", path))["mounts"]
    assert found["measurement"]["outcome"] == "mostly_resident"
    assert "could not be read" not in found["measurement"]["reason"]


@pytest.mark.parametrize("keep_cache", [True, False])
def test_a_slow_filesystem(tmp_path: Path, make_mount: MakeMount, keep_cache: bool) -> None:
    write_file(tmp_path / "source" / "a.safetensors", 60 * MIB)
    mount = make_mount(
        tmp_path / "source", rate_mb_per_s=200, round_trip_ms=2, keep_cache=keep_cache
    )
    document = json.loads(run_doctor("--json", "--read-bytes", "48MiB", mount.mountpoint))
    (found,) = document["mounts"]
    measurement = found["measurement"]
    assert found["mount"]["type"] == "fuse.slowfs"
    assert found["mount"]["mount_class"] == "user_space"
    assert measurement["latency_seconds"] >= 0.002
    for name in ("one_stream", "streams", "plain"):
        assert 0 < measurement[name]["bytes_per_second"] < 230e6
    said = " ".join(keep for advice in document["advice"] for keep in advice["keep"])
    assert ("kernel_cache" in said) == (not keep_cache)
    assert measurement["keeping"] == ("unknown" if keep_cache else "emptied_by_open")
    if keep_cache:
        assert measurement["kept_bytes"] >= measurement["read_bytes"]
        mount.wait_until_idle()
        assert mount.counters().bytes_served <= 60 * MIB


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_another_user_is_not_measured(open_folder: Path) -> None:
    path = write_file(open_folder / "a.safetensors", 16 * MIB)
    path.chmod(0o444)
    make_cold(path)
    done = finish(start_python(AS_NOBODY, "doctor", "--json", path))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (found,) = document["mounts"]
    if found["resident_bytes"] is not None:
        pytest.skip("this kernel answers cachestat(2) for the files of others")
    assert "residency unknown" in found["measurement"]["reason"]
    assert (found["untold"], found["owners"]) == (1, [["root", 1]])
    assert any("sudo -u root" in advice["commands"][0] for advice in document["advice"])
    assert resident_bytes(path) <= 4 * PAGE_BYTES  # its first bytes: may it be loaded at all?


def test_two_mounts_at_once(tmp_path: Path, make_mount: MakeMount) -> None:
    write_file(tmp_path / "source" / "a.safetensors", MIB)
    mount = make_mount(tmp_path / "source")
    write_file(tmp_path / "folder" / "b.safetensors", MIB)
    (tmp_path / "folder" / "a.safetensors").symlink_to(mount.mountpoint / "a.safetensors")
    found = json.loads(run_doctor("--json", tmp_path / "folder"))["mounts"]
    assert [(each["mount"]["type"] == "fuse.slowfs", each["files"]) for each in found] == [
        (True, 1),
        (False, 1),
    ]
