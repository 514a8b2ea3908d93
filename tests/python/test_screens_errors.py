"""What goes wrong is told once: by the command, and not by the library's log besides."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from conftest import FOREVER_SECONDS, MIB, MakeMount, eventually, finish, run_python, write_file
from terminal_support import COMMAND, run, start


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("a-1.safetensors", "a-2.safetensors"):
        write_file(tmp_path / "source" / name, 2 * MIB)
    return tmp_path / "source"


def complaints(said: str) -> list[str]:
    """Lines of standard error that are no progress."""
    return [line for line in said.splitlines() if not line.startswith("shardahead: warm: ")]


def test_a_page_that_cannot_be_read(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source)
    mount.bad("a-2.safetensors", MIB, 4096)
    for words in ([], ["--strategy", "pread"], ["--json", "--strategy", "pread"], ["-v"]):
        done = run("warm", *words, mount.mountpoint)
        assert done.returncode == 1
        (line,) = complaints(done.stderr)
        assert line.startswith("shardahead: incomplete: ")
        assert f"a-2.safetensors' at offset {MIB}: Input/output error; " in line
        assert line.count("dmesg") == 1
        assert "[Errno" not in line
        mount.evict_all()


@pytest.mark.parametrize("broken", [{"keep_cache": False}, {"direct_io": True}])
def test_a_mount_that_keeps_nothing(
    source: Path, make_mount: MakeMount, broken: dict[str, bool]
) -> None:
    mount = make_mount(source, **broken)
    done = run("warm", mount.mountpoint)
    assert done.returncode == 1
    (line,) = complaints(done.stderr)
    assert line.startswith("shardahead: incomplete: ")


def test_a_shard_that_is_missing(source: Path) -> None:
    for command in ("warm", "status", "evict", "plan"):
        done = run(command, source / "a-3.safetensors")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "a-3.safetensors" in line


def test_what_does_not_fit(source: Path) -> None:
    done = run("warm", source, env={"SHARDAHEAD_WINDOW_BYTES": "1MiB"})
    assert done.returncode == 1
    assert complaints(done.stderr) == ["shardahead: incomplete: 2.00 MiB left out"]


def test_no_thread(source: Path) -> None:
    script = f"""
import sys
from shardahead.prefetch import figures
real = figures.make_report
def failed(*arguments, **options):
    import dataclasses
    error = OSError(11, "Resource temporarily unavailable")
    error.operation = "pthread_create"
    report = real(*arguments, **options)
    return dataclasses.replace(report, error_count=1, errors=(error,))
figures.make_report = failed
{COMMAND}
"""
    done = run("warm", source, script=script)
    assert done.returncode == 1
    (line,) = complaints(done.stderr)
    assert "pthread_create" in line


def test_an_interruption(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source)
    mount.stall("a-2.safetensors", 0, FOREVER_SECONDS)
    process = start("warm", "--threads", "1", mount.mountpoint)
    eventually(lambda: mount.counters().in_flight or process.poll() is not None, "nothing stalls")
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130
    assert complaints(done.stderr) == ["shardahead: incomplete: interrupted"]
    assert done.stdout.startswith("warm: ")
    assert "left out" in done.stdout


def test_a_library_still_logs_it(source: Path, make_mount: MakeMount) -> None:
    """There nobody else tells it."""
    mount = make_mount(source)
    mount.bad("a-2.safetensors", MIB, 4096)
    script = """
import json, logging, sys
from pathlib import Path
from shardahead import prefetch_files
records = []
class Kept(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
logging.getLogger("shardahead").addHandler(Kept())
with prefetch_files(sorted(Path(sys.argv[1]).iterdir()), strategy="pread") as handle:
    handle.wait()
print(json.dumps(records))
"""
    (message,) = run_python(script, mount.mountpoint)
    assert message.startswith("prefetch incomplete")
