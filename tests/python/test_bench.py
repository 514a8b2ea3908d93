"""shardahead-bench on small real files: what its JSON says, against what the kernel and slowfs say.

No figure is judged, only where it comes from: cold cells were cold, failed ones have no figure. The
parts that decide are tested in benchmarks/bench, the command `shardahead bench` in
test_bench_command.py.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import signal
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    HANG_SECONDS,
    KIB,
    MIB,
    NOBODY,
    REPOSITORY,
    MakeMount,
    StrPath,
    clean_environment,
    eventually,
    finish,
    resident_bytes,
    write_file,
)
from terminal_support import Terminal

from shardahead import __version__

SIZES_BYTES = {"a-2.safetensors": 2 * MIB + 7, "a-10.safetensors": MIB, "a-1.bin": 10}
MEASURED_BYTES = 3 * MIB + 7


def find_binary() -> Path | None:
    """The newest one below build/, else the one that is installed.

    Not that of build/asan: a leak check at exit would wait for threads that are still reading.
    """
    built = [
        path
        for path in (REPOSITORY / "build").glob("*/benchmarks/bench/shardahead-bench")
        if os.access(path, os.X_OK) and "asan" not in path.parts
    ]
    if built:
        return max(built, key=lambda path: path.stat().st_mtime)
    installed = shutil.which("shardahead-bench", path=sysconfig.get_path("scripts"))
    return Path(installed) if installed else None


BINARY = find_binary()
needs_binary = pytest.mark.skipif(BINARY is None, reason="shardahead-bench is not built")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in SIZES_BYTES.items():
        write_file(tmp_path / "model" / name, size)
    return tmp_path / "model"


def start(*arguments: StrPath, **options: Any) -> subprocess.Popen[str]:
    assert BINARY is not None
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([BINARY, *arguments], env=clean_environment(), **options)


def run(*arguments: StrPath, **options: Any) -> subprocess.CompletedProcess[str]:
    return finish(start(*arguments, **options))


def printed(*arguments: StrPath, status: int = 0, **options: Any) -> Any:
    """The JSON object that it prints, and nothing else."""
    done = run("--json", *arguments, **options)
    assert done.returncode == status, done.stderr + done.stdout
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def small(*more: StrPath) -> list[StrPath]:
    return ["--strategies", "auto", "--threads", "2", "--block-sizes", "256KiB", *more]


# ---- what is measured ----


@needs_binary
def test_every_cell_is_measured_in_its_state(folder: Path) -> None:
    found = printed(
        *("--strategies", "auto,fadvise,readahead,pread", "--threads", "1,3"),
        *("--block-sizes", "256KiB,1MiB", "--repeats", "2", folder),
    )
    assert found["version"] == __version__
    assert (found["complete"], found["interrupted"]) == (True, False)
    assert found["measured_bytes"] == found["total_bytes"] == MEASURED_BYTES
    names = [os.path.basename(file["path"]) for file in found["files"]]
    assert names == ["a-2.safetensors", "a-10.safetensors"]
    assert len(found["cells"]) == 4 * 2 * 2 * 2
    for cell in found["cells"]:
        assert cell["counted_repeats"] == 2
        assert cell["megabytes_per_second"]["least"] > 0
        assert cell["resident_after_share"]["median"] > 0.9
        assert [repeat["repeat"] for repeat in cell["repeats"]] == [1, 2]
        for repeat in cell["repeats"]:
            assert repeat["outcome"] == "measured"
            resident = 0 if cell["state"] == "cold" else MEASURED_BYTES
            assert repeat["resident_before_bytes"] == resident
            used = {"auto": None, "fadvise": "fadvise", "readahead": "readahead", "pread": "pread"}
            if cell["state"] == "warm":
                assert repeat["strategy_used"] is None
            elif used[cell["strategy"]]:
                assert repeat["strategy_used"] == used[cell["strategy"]]
    assert found["recommendation"]["advice"] in ("setting", "defaults")
    assert "SHARDAHEAD_THREADS=" in found["recommendation"]["environment"]
    assert "--block-size" in found["recommendation"]["command"]


@needs_binary
def test_node_and_mount_are_those_of_the_kernel(folder: Path) -> None:
    found = printed(*small("--repeats", "1", "--states", "warm", folder))
    assert found["node"]["kernel"] == f"Linux {os.uname().release}"
    assert found["node"]["cpus"] == os.cpu_count()
    assert found["node"]["usable_cpus"] == len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    assert found["node"]["memory_bytes"] == pages
    (mount,) = found["mounts"]
    device = os.stat(folder).st_dev
    assert mount["device"] == f"{os.major(device)}:{os.minor(device)}"
    assert (mount["files"], mount["measured_bytes"]) == (2, MEASURED_BYTES)
    assert mount["type"]
    assert str(folder).startswith(mount["mount_point"])
    assert found["recommendation"]["reason"] == "no cell was to be measured cold"


@needs_binary
def test_the_limit_is_what_is_measured_and_read(folder: Path, make_mount: MakeMount) -> None:
    mount = make_mount(folder)
    limit = MIB + 64 * KIB
    found = printed(*small("--limit", str(limit), "--repeats", "1", mount.mountpoint))
    assert (found["measured_bytes"], found["total_bytes"]) == (limit, MEASURED_BYTES)
    assert [file["measured_bytes"] for file in found["files"]] == [limit]
    cold, warm = found["cells"]
    # The filesystem counts what was read; readahead may go on a little behind the limit.
    assert cold["wire_bytes"]["median"] >= limit
    assert cold["read_requests"]["median"] > 0
    assert (warm["wire_bytes"]["median"], warm["read_requests"]["median"]) == (0, 0)
    assert found["mounts"][0]["requests_counted_by"] == "slowfs"
    assert found["mounts"][0]["read_ahead_kib"] == 128


@needs_binary
def test_files_of_several_mounts(folder: Path, make_mount: MakeMount) -> None:
    mount = make_mount(folder)
    here, there = folder / "a-10.safetensors", mount.mountpoint / "a-2.safetensors"
    found = printed(*small("--repeats", "1", "--states", "cold", here, there))
    assert {entry["type"]: entry["files"] for entry in found["mounts"]}["fuse.slowfs"] == 1
    assert len(found["mounts"]) == 2


@needs_binary
def test_the_table_and_the_file(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    done = run(*small("--repeats", "1", "--output", output, folder))
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("auto")]
    assert [row[row.index("256KiB") + 1] for row in rows[:2]] == ["cold", "warm"]
    assert "recommendation: auto, 2 threads, 256KiB" in done.stdout
    document = json.loads(output.read_text())
    assert document["complete"] is True
    assert {cell["state"] for cell in document["cells"]} == {"cold", "warm"}


@needs_binary
@pytest.mark.parametrize(
    ("columns", "more", "narrow"), [(80, [], True), (200, [], False), (80, ["-v"], False)]
)
def test_the_table_fits_a_terminal(
    folder: Path, columns: int, more: list[str], narrow: bool
) -> None:
    become = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    words = [str(BINARY), *map(str, small("--repeats", "1", folder)), *more]
    terminal = Terminal(columns=columns)
    shown = terminal.shown(terminal.start(*words, script=become, streams=("stdout",)))
    assert shown.status == 0
    assert any(line.startswith("-v shows also: ") for line in shown.lines) == narrow
    table = [line for line in shown.lines if line.startswith(("strategy ", "auto"))]
    assert len(table) == 3
    assert all(len(line) <= 80 for line in table) == narrow
    assert ("requests" in table[0]) != narrow


# ---- what cannot be measured ----


@needs_binary
def test_what_is_mapped_is_not_presented_as_cold(folder: Path) -> None:
    path = folder / "a-2.safetensors"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[MIB] >= 0
        found = printed(*small("--repeats", "1", folder), status=1)
        text = run(*small("--repeats", "1", "--states", "cold", folder)).stdout
        assert resident_bytes(path) > 0
    cold, warm = found["cells"]
    (repeat,) = cold["repeats"]
    assert repeat["outcome"] == "not cold"
    assert 0 < repeat["resident_before_bytes"] < MEASURED_BYTES
    assert "seconds" not in repeat
    assert (cold["counted_repeats"], cold["megabytes_per_second"]) == (0, None)
    assert f"process {os.getpid()} " in repeat["reason"]
    assert "mapped" in repeat["reason"]
    assert warm["counted_repeats"] == 1
    assert found["recommendation"]["reason"] == "no cell could be measured cold"
    assert "could not be made cold" in text
    assert "no recommendation: no cell could be measured cold" in text


@needs_binary
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_who_may_not_ask_measures_nothing(open_folder: Path) -> None:
    write_file(open_folder / "a.safetensors", MIB).chmod(0o644)
    assert BINARY is not None
    program = shutil.copy(BINARY, open_folder / "program")
    command = [program, "--json", *small("--repeats", "1", open_folder / "a.safetensors")]
    done = subprocess.run(
        command, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
    )
    found = json.loads(done.stdout)
    if found["complete"]:
        pytest.skip("this kernel tells everyone what is resident")
    assert done.returncode == 1
    for cell in found["cells"]:
        (repeat,) = cell["repeats"]
        assert repeat["outcome"] == f"not {cell['state']}"
        assert repeat["resident_before_bytes"] is None
        assert "unknown" in repeat["reason"]
        assert cell["seconds"] is None


@needs_binary
def test_a_read_error_is_said_and_gives_no_figure(folder: Path, make_mount: MakeMount) -> None:
    mount = make_mount(folder)
    mount.eio("a-2.safetensors", MIB)
    found = printed(*small("--repeats", "2", "--states", "cold", mount.mountpoint), status=1)
    (cell,) = found["cells"]
    assert (cell["counted_repeats"], cell["seconds"]) == (0, None)
    for repeat in cell["repeats"]:
        assert repeat["outcome"] == "failed"
        assert repeat["error_count"] >= 1
        error = repeat["errors"][0]
        assert (error["errno"], error["message"]) == (5, "Input/output error")
        assert error["path"] == str(mount.mountpoint / "a-2.safetensors")
        assert error["offset"] >= MIB - 128 * KIB
        assert error["operation"]
        assert "Input/output error" in repeat["reason"]
    assert found["recommendation"]["advice"] == "none"


@needs_binary
def test_a_mount_that_drops_pages_at_open_has_no_warm_figure(
    folder: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(folder, keep_cache=False)
    found = printed(*small("--repeats", "1", mount.mountpoint), status=1)
    cold, warm = found["cells"]
    assert cold["counted_repeats"] == 1
    assert (warm["counted_repeats"], warm["seconds"]) == (0, None)
    assert warm["repeats"][0]["outcome"] == "not warm"


@needs_binary
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_what_was_measured_stays(
    folder: Path, make_mount: MakeMount, number: signal.Signals
) -> None:
    mount = make_mount(folder)
    mount.stall("a-10.safetensors", 0, HANG_SECONDS)
    process = start("--json", *small(mount.mountpoint))
    eventually(lambda: mount.counters().in_flight > 0, "it reads nothing")
    process.send_signal(number)
    done = finish(process, HANG_SECONDS / 2)
    assert done.returncode == 128 + number
    why = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated by SIGTERM"}[number]
    assert done.stderr == f"shardahead-bench: incomplete: {why}\n"
    found = json.loads(done.stdout)
    assert (found["complete"], found["interrupted"]) == (False, True)
    assert found["recommendation"]["reason"] == "interrupted before all was measured"


# ---- wrong usage ----


@needs_binary
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--strategy", "magic"),
        ("--threads", "0"),
        ("--threads", "many"),
        ("--block-size", "3"),
        ("--states", "lukewarm"),
        ("--repeats", "0"),
        ("--limit", "16 potatoes"),
    ],
)
def test_a_wrong_option_is_named(folder: Path, option: str, value: str) -> None:
    done = run(option, value, folder)
    assert done.returncode == 2
    assert f"{option} {value}: must be" in done.stderr
    assert done.stdout == ""


@needs_binary
def test_wrong_usage_is_status_2(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_file(tmp_path / "nothing", 0)
    cases: list[tuple[list[StrPath], str]] = [
        ([], "PATH"),
        (["--no-such-option", tmp_path], "no-such-option"),
        ([tmp_path / "empty"], "no files in the folder"),
        ([tmp_path / "nothing"], "all files are empty"),
        (["a.index.json"], "a.index.json"),
    ]
    for arguments, message in cases:
        done = run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stdout == ""


@needs_binary
def test_what_cannot_be_opened_is_status_1(tmp_path: Path) -> None:
    good = write_file(tmp_path / "good", 10)
    os.mkfifo(tmp_path / "fifo")
    cases: list[tuple[list[StrPath], str, str]] = [
        ([good, tmp_path / "mis\nsing"], "mis\\x0asing", "No such file or directory"),
        ([good, tmp_path / "fifo"], "fifo", "not a regular file"),
        ([good, "--output", tmp_path / "no" / "file"], "no/file", "No such file or directory"),
    ]
    for arguments, name, reason in cases:
        done = run(*arguments)
        assert done.returncode == 1
        assert f"{name}': " in done.stderr
        assert reason in done.stderr
        assert (done.stderr.count("\n"), done.stdout) == (1, "")


@needs_binary
def test_help_and_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"shardahead-bench {__version__}\n")
    done = run("--help")
    assert done.returncode == 0
    for option in ("strategy", "threads", "block-size", "states", "repeats", "limit", "output"):
        assert f"--{option}" in done.stdout
