"""Many threads at the same objects, with the GIL and in a Python without it; and that importing the
core leaves such a Python without it.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, MakeMount, eventually, held, let_go, run_python, write_file

import shardahead
from shardahead import PrefetchHandle, _core, prefetch_files

THREADS = 8
ROUNDS = 200

CLOSED_WHILE_READ = """
import errno, json, sys, threading, time

from shardahead import _core
path, server = sys.argv[1:]
mapping = _core.FileMapping(path)
found = []

def read():
    try:
        mapping.read(0, 4096)
    except OSError as error:
        found.append(errno.errorcode[error.errno])

def in_flight():
    with open(server + "/counters") as counters:
        return json.load(counters)["in_flight"]

reader = threading.Thread(target=read)
reader.start()
while reader.is_alive() and not in_flight():
    time.sleep(0.01)
mapping.close()
reader.join()
try:
    mapping.read(0, 1)
except RuntimeError as error:
    found.append(str(error))
print(json.dumps(found))
"""


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls gave, all begun at the same moment, each in a thread of its own."""
    begin = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        begin.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(run, call) for call in calls]]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_the_core_needs_no_gil() -> None:
    assert _core.__file__
    is_enabled = getattr(sys, "_is_gil_enabled")  # noqa: B009  (not there before Python 3.13)
    assert not is_enabled()


def test_a_file_that_is_closed_meanwhile_is_read_to_the_end(
    tmp_path: Path, make_mount: MakeMount
) -> None:
    write_file(tmp_path / "source" / "a", MIB)
    mount = make_mount(tmp_path / "source")
    path = mount.mountpoint / "a"
    mount.bad("a", 0, 4096)
    mount.stall("a", 0, 1.0)
    server = mount.mountpoint / ".slowfs"
    assert run_python(CLOSED_WHILE_READ, path, server) == ["EIO", "the file has been closed"]


def test_a_handle_is_for_any_thread(tmp_path: Path) -> None:
    handle = held(write_file(tmp_path / "a", 4 * MIB))
    called: list[PrefetchHandle] = []

    def look() -> None:
        for _ in range(ROUNDS):
            report = handle.report()
            assert report.read_bytes + report.resident_bytes <= report.planned_bytes
            assert handle.progress().done_bytes <= handle.progress().planned_bytes
            handle.consumed(0, 0)

    def watch() -> None:
        for _ in range(ROUNDS):
            handle.add_done_callback(called.append)

    def end() -> None:
        let_go(handle)
        handle.wait(60)

    at_once(*[look] * THREADS, watch, watch, end)
    handle.wait(60)
    handle.stop()
    assert handle.report().complete
    eventually(lambda: len(called) == 2 * ROUNDS, "a callback was not called")


def test_what_happened_is_told_once_whoever_asks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_file(tmp_path / "a", MIB)
    caplog.set_level("INFO", "shardahead")
    for _ in range(20):
        caplog.clear()
        handle = held(path)
        at_once(*[handle.stop] * THREADS)
        assert len(caplog.records) == 1


def test_prefetches_of_many_threads_share_the_files(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", 2 * MIB)

    def load() -> bool:
        for _ in range(10):
            with prefetch_files(path) as handle:
                handle.wait(60)
            shardahead.residency([path])
        return handle.report().complete

    assert all(at_once(*[load] * THREADS))


def test_one_mapping_is_held_and_read_by_many(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    content = path.read_bytes()
    mapping = _core.FileMapping(bytes(path))

    def hold() -> None:
        for i in range(ROUNDS):
            offset = i * 4096
            part = content[offset : offset + 4096]
            assert bytes(memoryview(mapping.hold(offset, 4096))) == part
            assert mapping.read(offset, 4096) == part

    at_once(*[hold] * THREADS)
    at_once(*[mapping.close] * THREADS)
    assert bytes(memoryview(mapping.hold(0, 10))) == content[:10]
