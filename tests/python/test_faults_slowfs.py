"""A storage that fails under a prefetch, and under a load: errors, short files, a dead server."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from conftest import (
    FOREVER_SECONDS,
    KIB,
    MIB,
    MakeMount,
    check_sum,
    eventually,
    finish,
    is_resident,
    resident_bytes,
    result_of,
    start_python,
    worker_threads,
    write_file,
)
from nursery import Nursery

from shardahead import PrefetchHandle, prefetch_files
from shardahead.prefetch.options import Strategy

STRATEGIES = ["auto", "fadvise", "readahead", "pread"]
ITERATORS = ["safetensors_weights_iterator", "buffered_multi_thread_safetensors_weights_iterator"]
TENSOR_BYTES = MIB
BAD_TENSOR = 5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("1.bin", "2.bin", "3.bin"):
        write_file(tmp_path / "source" / name, 4 * MIB + 100)
    return tmp_path / "source"


def check_errors(handle: PrefetchHandle, path: Path, code: int, offset: int, block: int) -> None:
    """Errors of this file alone, each no earlier than in the block of `offset`."""
    assert handle.failed
    assert handle.errors
    for named, error in handle.errors:
        assert named == error.filename == str(path)
        assert error.errno == code
        assert offset // block * block <= getattr(error, "offset", -1) < path.stat().st_size


# ---- errors of the storage ----


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_file_that_cannot_be_read_from_some_offset_on(
    source: Path, make_mount: MakeMount, strategy: Strategy
) -> None:
    mount = make_mount(source)
    good, bad, good_too = (mount.mountpoint / name for name in ("1.bin", "2.bin", "3.bin"))
    offset = 2 * MIB + 300 * KIB
    mount.eio(bad, offset)
    handle = prefetch_files(mount.mountpoint, strategy=strategy, block_size=MIB)
    handle.wait()
    handle.stop()
    report = handle.report()
    check_sum(report)
    check_errors(handle, bad, errno.EIO, offset, MIB)
    assert report.failed_bytes >= 4 * MIB + 100 - offset - 4096
    assert not report.complete
    assert is_resident(good)
    assert is_resident(good_too)
    assert resident_bytes(bad, 0, offset) == offset
    assert "2.bin" in str(report.incomplete_reason())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_file_that_the_server_has_cut_short(
    source: Path, make_mount: MakeMount, strategy: Strategy
) -> None:
    mount = make_mount(source)
    good, bad, good_too = (mount.mountpoint / name for name in ("1.bin", "2.bin", "3.bin"))
    handle = prefetch_files(
        mount.mountpoint,
        strategy=strategy,
        block_size=64 * KIB,
        window_bytes=64 * KIB,
        consumer=True,
    )
    cut = MIB + 100 * KIB
    mount.truncate(bad, cut)  # the file is open, and the kernel is not told
    handle.consumed(2, 4 * MIB + 100)
    handle.wait()
    check_sum(handle.report())
    assert is_resident(good)
    assert is_resident(good_too)
    assert handle.failed
    for named, error in handle.errors:
        assert (named, error.errno) == (str(bad), errno.ENODATA)
        assert "became shorter" in str(error)
        assert getattr(error, "offset", -1) >= cut // 4096 * 4096


LOAD = """
import json, sys, torch, shardahead
weights = getattr(shardahead, sys.argv[1])(sys.argv[2])
found, error = [], None
try:
    for name, tensor in weights:
        assert bool((tensor == len(found)).all()), name
        found.append(name)
except OSError as caught:
    error = [caught.errno, caught.filename, str(caught)]
print(json.dumps({"found": found, "error": error, "failed": weights.prefetch.failed}))
"""


def names_before(shard: int, tensor: int) -> list[str]:
    return [f"{i}.{j}" for i in range(3) for j in range(8)][: 8 * shard + tensor]


def data_offset(path: Path) -> int:
    return path.stat().st_size - 8 * TENSOR_BYTES


@pytest.mark.parametrize("make", ITERATORS)
def test_a_tensor_that_cannot_be_read_is_an_error_when_its_turn_comes(
    nursery: Nursery, numbered: Path, make_mount: MakeMount, make: str
) -> None:
    mount = make_mount(numbered)
    bad = mount.mountpoint / "model-1.safetensors"
    mount.eio(bad, data_offset(bad) + BAD_TENSOR * TENSOR_BYTES + 100 * KIB)
    found = nursery.run(LOAD, make, mount.mountpoint)
    assert found["found"] == names_before(1, BAD_TENSOR)
    code, filename, text = found["error"]
    assert (code, filename) == (errno.EIO, str(bad))
    assert f"tensor '1.{BAD_TENSOR}'" in text
    assert found["failed"]


def pausing(script: str, before: str) -> str:
    """`script` that prints a line, and waits for one, in front of the line `before`."""
    indent = before[: len(before) - len(before.lstrip())]
    pause = f'{indent}print("waiting", flush=True); sys.stdin.readline()\n'
    assert before in script
    return script.replace(before, pause + before)


def run_paused(process: Popen[str], meanwhile: Callable[[], None]) -> Any:
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "waiting\n"
    meanwhile()
    process.stdin.write("go\n")
    process.stdin.flush()
    return result_of(process)


def test_a_shard_that_the_server_has_cut_short_is_an_error_and_no_signal(
    numbered: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(numbered)
    bad = mount.mountpoint / "model-1.safetensors"
    cut = data_offset(bad) + BAD_TENSOR * TENSOR_BYTES + 100 * KIB
    # It is cut while its first tensor is in use: mapped by then, and not yet read to the end.
    script = LOAD.replace("(sys.argv[2])", "(sys.argv[2], window_bytes=65536, block_size=65536)")
    script = script.replace(
        "append(name)\n", "append(name)\n        if name == '1.0':\n            0\n"
    )
    process = start_python(
        pausing(script, "            0\n"), ITERATORS[0], mount.mountpoint, stdin=PIPE
    )
    found = run_paused(process, lambda: mount.truncate(bad, cut))
    assert found["found"] == names_before(1, BAD_TENSOR)
    assert found["error"][:2] == [errno.ENODATA, str(bad)]
    assert f"tensor '1.{BAD_TENSOR}'" in found["error"][2]


@pytest.mark.parametrize("make", ITERATORS)
def test_a_load_goes_on_where_only_the_prefetch_failed(
    numbered: Path, make_mount: MakeMount, make: str
) -> None:
    mount = make_mount(numbered)
    for i in range(3):
        mount.eio(f"model-{i}.safetensors", 16 * KIB)
    script = LOAD.replace("found, error", "weights.prefetch.wait()\nfound, error")
    process = start_python(pausing(script, "found, error"), make, mount.mountpoint, stdin=PIPE)
    found = run_paused(process, mount.clear)
    assert found == {"found": names_before(3, 0), "error": None, "failed": True}


# ---- a server that does not answer ----


def test_stop_returns_while_a_read_is_stalled(source: Path, make_mount: MakeMount) -> None:
    before = worker_threads()
    mount = make_mount(source)
    mount.stall("2.bin", 0, FOREVER_SECONDS)
    handle = prefetch_files(mount.mountpoint, block_size=MIB)
    eventually(lambda: is_resident(mount.mountpoint / "1.bin"), "the first file does not come")
    eventually(lambda: mount.counters().in_flight, "nothing stalls")
    handle.stop(timeout=0.05)
    assert not handle.done
    assert handle.cancelled
    with pytest.raises(TimeoutError):
        handle.wait(0.05)
    assert not handle.report().complete
    assert "still running" in str(handle.report().incomplete_reason())
    del handle
    assert worker_threads() - before
    mount.close()  # its threads end when the read does
    eventually(lambda: worker_threads() <= before, "the threads stay")


@pytest.mark.parametrize(
    "end", ["", "del handle", "handle.stop(timeout=0.05)", "raise SystemExit(0)"]
)
@pytest.mark.parametrize("strategy", ["fadvise", "pread"])
def test_the_exit_is_not_held_up_by_a_stalled_read(
    source: Path, make_mount: MakeMount, strategy: Strategy, end: str
) -> None:
    mount = make_mount(source)
    mount.stall("1.bin", 0, FOREVER_SECONDS)
    script = f"""
import sys, shardahead
handle = shardahead.prefetch_files(sys.argv[1], strategy="{strategy}")
sys.stdin.readline()
{end}
"""
    process = start_python(script, mount.mountpoint, stdin=PIPE)
    eventually(lambda: mount.counters().in_flight, "nothing stalls")
    done = finish(process)  # closes its standard input
    assert (done.returncode, done.stderr) == (0, "")


def interrupted(script: str, mount: Any, *arguments: str) -> Any:
    """Runs `script` until it hangs on the stalled read, then presses Ctrl-C."""
    process = start_python(script, *arguments)
    eventually(lambda: mount.counters().in_flight, "nothing stalls")
    process.send_signal(signal.SIGINT)
    return finish(process)


def test_ctrl_c_interrupts_a_wait_for_a_stalled_read(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source)
    mount.stall("1.bin", 0, FOREVER_SECONDS)
    script = "import sys, shardahead\nshardahead.prefetch_files(sys.argv[1]).wait()"
    done = interrupted(script, mount, str(mount.mountpoint))
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr


def main_thread_state(process: Popen[str]) -> str:
    """As in proc(5): D is a sleep that only SIGKILL ends, S one that any signal ends."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("make", ITERATORS)
def test_ctrl_c_interrupts_a_load_that_waits_for_a_stalled_read(
    numbered: Path, make_mount: MakeMount, make: str
) -> None:
    mount = make_mount(numbered)
    mount.stall("model-1.safetensors", 16 * KIB, FOREVER_SECONDS)
    script = f"""
import sys, shardahead
for name, tensor in shardahead.{make}(sys.argv[1]):
    if name == "0.7":
        print(name, flush=True)
"""
    process = start_python(script, mount.mountpoint)
    assert process.stdout is not None
    assert process.stdout.readline() == "0.7\n"
    eventually(lambda: main_thread_state(process) == "S", "it does not wait")
    eventually(lambda: mount.counters().in_flight, "nothing stalls")
    process.send_signal(signal.SIGINT)
    done = finish(process, seconds=8)
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr


def test_ctrl_c_interrupts_the_command(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source)
    mount.stall("1.bin", 0, FOREVER_SECONDS)
    script = (
        "import sys, shardahead.command.cli\nsys.exit(shardahead.command.cli.main(sys.argv[1:]))"
    )
    done = interrupted(script, mount, "warm", str(mount.mountpoint))
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert "left out" in done.stdout or "nothing read" in done.stdout
