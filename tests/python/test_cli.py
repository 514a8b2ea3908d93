"""The command, as people and scripts use it: what it prints, its JSON, and its exit status."""

from __future__ import annotations

import json
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KIB,
    MIB,
    PAGE_BYTES,
    StrPath,
    clean_environment,
    finish,
    is_resident,
    make_cold,
    resident_bytes,
    write_file,
)

from shardahead import __version__

SIZES_BYTES = {"a-1.safetensors": 3 * MIB, "a-2.safetensors": 7, "a-10.safetensors": MIB}
TOTAL_BYTES = sum(SIZES_BYTES.values())
COMMANDS = ["warm", "status", "evict", "plan", "doctor"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in SIZES_BYTES.items():
        write_file(tmp_path / "model" / name, size)
    make_cold(*(tmp_path / "model").iterdir())
    return tmp_path / "model"


def start(*arguments: StrPath, **options: Any) -> subprocess.Popen[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    options["env"] = {**clean_environment(), **options.get("env", {})}
    return subprocess.Popen([sys.executable, "-m", "shardahead", *arguments], **options)


def run(*arguments: StrPath, **options: Any) -> subprocess.CompletedProcess[str]:
    return finish(start(*arguments, **options))


def quiet(command: str) -> list[str]:
    return ["--quiet"] if command == "warm" else []


def printed(*arguments: StrPath, status: int = 0, **options: Any) -> Any:
    """The JSON object that it prints, and nothing else."""
    done = run(*arguments, "--json", **options)
    assert done.returncode == status, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


# ---- what each command does ----


def test_status_warm_status_evict(folder: Path) -> None:
    assert printed("status", folder)["resident_bytes"] == 0
    done = run("warm", "--quiet", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"warm: 4\.00 MiB in [0-9.]+ s, [0-9.,]+ MB/s\n", done.stdout)
    found = printed("status", folder)
    assert (found["size_bytes"], found["resident_bytes"]) == (TOTAL_BYTES, TOTAL_BYTES)
    assert [
        (Path(file["path"]).name, file["size_bytes"], file["resident_bytes"], file["source"])
        for file in found["files"]
    ] == [(name, size, size, "cachestat") for name, size in SIZES_BYTES.items()]
    evicted = printed("evict", folder)
    assert evicted["resident_bytes"] == 0
    assert sum(resident_bytes(path) for path in folder.iterdir()) == 0


def test_tables_for_people(folder: Path) -> None:
    (folder / "a-1.safetensors").read_bytes()
    done = run("status", folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:2] == [
        "status: 3.00 MiB of 4.00 MiB resident (74.9 %)",
        f"3 shards in {folder}",
    ]
    assert f"a-1.safetensors 3.00 MiB 100.0 % {'━' * 20}" in lines
    assert "a-10.safetensors 1.00 MiB 0.0 %" in lines
    done = run("plan", folder, "--local-rank", "1", "--local-size", "2", "--partition", "file")
    assert done.returncode == 0
    plan = "plan: 4.00 MiB in 4 blocks; local rank 1 of 2: 1 block, 7 B (partition file)"
    assert done.stdout.splitlines()[0] == plan
    done = run("plan", folder, "--local-rank", "1", "--local-size", "2")
    plan = "plan: 4.00 MiB in 4 blocks, which 2 local ranks would claim in this order"
    assert done.stdout.splitlines()[0] == plan


@pytest.mark.parametrize("kind", ["folder", "index", "files", "one file"])
def test_each_way_to_name_a_checkpoint(folder: Path, kind: str) -> None:
    names = list(SIZES_BYTES)
    paths: list[StrPath] = [folder]
    if kind == "index":
        names = ["a-10.safetensors", "a-1.safetensors"]
        paths = [folder / "some.safetensors.index.json"]
        weight_map = dict(enumerate(names))
        (folder / "some.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    elif kind == "files":
        paths = [folder / name for name in reversed(names)]
    elif kind == "one file":
        names = ["a-10.safetensors"]
        paths = [folder / names[0]]
    for command in ("plan", "status", "evict"):
        found = printed(command, *paths)
        assert [os.path.basename(file["path"]) for file in found["files"]] == names
    assert printed("warm", *paths)["read_bytes"] == sum(SIZES_BYTES[name] for name in names)


def test_warm_as_json(folder: Path) -> None:
    found = printed("warm", folder, "--threads", "2", "--strategy", "pread", "--block-size", "1MiB")
    assert found["planned_bytes"] == found["resident_after_bytes"] == TOTAL_BYTES
    assert found["read_bytes"] + found["resident_bytes"] == TOTAL_BYTES
    assert (found["threads"], found["strategy"], found["block_bytes"]) == (2, "pread", MIB)
    assert (found["complete"], found["reason"], found["errors"]) == (True, None, [])
    assert all(is_resident(path) for path in folder.iterdir())


@pytest.mark.parametrize("partition", ["block", "file"])
def test_plan_as_json(folder: Path, partition: str) -> None:
    options = ["--block-size", "256KiB", "--partition", partition, "--local-size", "2"]
    found = [printed("plan", folder, *options, "--local-rank", rank) for rank in "01"]
    assert found[0]["blocks"] == found[1]["blocks"]
    assert sum(block["length"] for block in found[0]["blocks"]) == TOTAL_BYTES
    assert max(block["length"] for block in found[0]["blocks"]) == 256 * KIB
    shares = [plan["share"] for plan in found]
    assert sorted(shares[0] + shares[1]) == list(range(len(found[0]["blocks"])))
    assert sum(resident_bytes(path) for path in folder.iterdir()) == 0


def test_two_ranks_share_the_work(folder: Path) -> None:
    ranks = [
        start(
            *("warm", folder, "--json", "--block-size", "256KiB"),
            env={
                "LOCAL_RANK": rank,
                "LOCAL_WORLD_SIZE": "2",
                "SHARDAHEAD_PARTITION": "block",
            },
        )
        for rank in "01"
    ]
    done = [finish(rank) for rank in ranks]
    assert [rank.returncode for rank in done] == [0, 0]
    found = [json.loads(rank.stdout) for rank in done]
    assert [(rank["local_rank"], rank["local_size"]) for rank in found] == [(0, 2), (1, 2)]
    assert sum(rank["planned_bytes"] for rank in found) == TOTAL_BYTES
    assert all(is_resident(path) for path in folder.iterdir())


def test_the_environment_counts(folder: Path) -> None:
    found = printed("warm", folder, env={"SHARDAHEAD_THREADS": "3", "SHARDAHEAD_STRATEGY": "pread"})
    assert (found["threads"], found["strategy"]) == (3, "pread")


def test_the_script_is_installed(folder: Path) -> None:
    script = Path(sys.executable).with_name("shardahead")
    if not script.exists():
        pytest.skip("the package is not installed into this environment")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == f"shardahead {__version__}"
    done = subprocess.run([script, "warm", folder], capture_output=True, text=True, check=True)
    assert all(is_resident(path) for path in folder.iterdir())


# ---- exit status ----


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_usage_is_status_2(tmp_path: Path, command: str) -> None:
    file = write_file(tmp_path / "file", 10)
    empty = tmp_path / "other" / "empty"
    empty.mkdir(parents=True)
    cases: list[tuple[list[StrPath], str]] = [
        ([empty], "no shards"),
        ([], "PATH"),
        ([file, "--no-such-option"], "--no-such-option"),
        ([file, empty], "it is empty"),
    ]
    for arguments, message in cases:
        done = run(command, *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["warm", "--threads", "0"],
        ["warm", "--threads", "many"],
        ["warm", "--strategy", "magic"],
        ["warm", "--block-size", "3"],
        ["plan", "--block-size", "16 potatoes"],
        ["plan", "--block-size", "9" * 400],
        ["plan", "--partition", "magic"],
        ["plan", "--local-rank", "1"],
        ["warm", "--local-rank", "2", "--local-size", "2"],
    ],
)
def test_a_wrong_option_is_named(folder: Path, arguments: list[str]) -> None:
    done = run(*arguments, folder)
    assert done.returncode == 2
    assert re.search(arguments[1].strip("-").replace("-", "[-_]"), done.stderr)
    assert arguments[2] in done.stderr
    assert "Traceback" not in done.stderr


def test_no_command_and_an_unknown_one() -> None:
    assert run().returncode == 2
    assert run("melt").returncode == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "(warm, status, evict, stage, plan, doctor, bench, report, completion)"),
        (["wram", "m"], "; did you mean warm?"),
        (["help"], "; did you mean --help?"),
        (["version"], "; did you mean --version?"),
        (["/no/model"], "; a COMMAND goes before the PATH, warm say"),
        (["."], "; a COMMAND goes before the PATH, warm say"),
        (["warm", "--thread", "abc", "m"], "--threads: not a whole number: 'abc' (1 to 256)"),
        (["warm", "--rate-limits", "1MB", "m"], "; did you mean --rate-limit?"),
        (["status", "--req", "2", "--ecah", "m"], "must be a share from 0% to 100%"),
        (["status", "--ecah", "m"], "; did you mean --each?"),
        (["status", "--potatoes", "m"], "unrecognized arguments: --potatoes"),
    ],
)
def test_what_is_mistyped_is_said_in_one_line_and_where_to_look(
    words: list[str], said: str
) -> None:
    done = run(*words)
    assert done.returncode == 2
    line, hint = done.stderr.splitlines()
    command = " ".join(["shardahead", *(words[:1] if words[:1] in (["warm"], ["status"]) else [])])
    assert line.startswith(f"{command}: error: ")
    assert said in line
    assert hint == f"Try '{command} --help'."


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_read_is_status_1(tmp_path: Path, command: str) -> None:
    good = write_file(tmp_path / "good", 10)
    os.mkfifo(tmp_path / "fifo")
    for name, reason in [
        ("missing", "No such file or directory"),
        ("a\nb.index.json", "No such file or directory"),
        ("fifo", "not a regular file: FIFO"),
    ]:
        done = run(command, good, tmp_path / name)
        assert done.returncode == 1
        assert repr(name)[1:-1] in done.stderr
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


def test_what_is_left_out_is_status_1(folder: Path) -> None:
    env = {"SHARDAHEAD_WINDOW_BYTES": "2MiB"}
    found = printed("warm", folder, status=1, env=env)
    assert found["left_out_bytes"] == TOTAL_BYTES - 2 * MIB
    done = run("warm", folder, env=env)
    assert done.returncode == 1
    assert "incomplete: 2.00 MiB left out" in done.stderr


def test_what_cannot_be_evicted_is_status_1(folder: Path) -> None:
    path = folder / "a-1.safetensors"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[5 * PAGE_BYTES] >= 0
        found = printed("evict", folder, status=1)
        assert found["resident_bytes"] == resident_bytes(path) >= PAGE_BYTES
        assert "mapped" in run("evict", folder).stderr
    assert run("evict", folder).returncode == 0


# ---- what else may come ----


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_name_is_printed(tmp_path: Path, encoding: str) -> None:
    name = os.fsdecode(b"a\n\xff\x1b[31m ") + "ü[bold].safetensors"
    write_file(tmp_path / name, 10)
    env = {"PYTHONIOENCODING": encoding}
    for command in COMMANDS:
        done = run(command, *quiet(command), tmp_path, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        assert printed(command, tmp_path, env=env)
        missing = run(command, tmp_path / (name + "2"), env=env)
        assert missing.returncode == 1
        assert missing.stderr.count("\n") == 1
        assert "\x1b" not in missing.stderr
