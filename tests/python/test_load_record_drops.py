"""A record of SHARDAHEAD_REPORT that is dropped where nobody chose: by a collection of garbage in
any thread, and at the exit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import KIB, run_python, write_file

from shardahead.checkpoint.shards import resolve_shards
from shardahead.node.topology import local_topology
from shardahead.prefetch import load_record
from shardahead.prefetch.figures import LoadFigures
from shardahead.prefetch.load_document import LoadStart
from shardahead.prefetch.load_record import LoadRecord
from shardahead.prefetch.options import resolve_options

# Drops the record in its own thread, as a collection of garbage may: at the first thing that this
# thread does, at the second, and so on, until it has come to wait.
DROPS = '''
import sys, threading, time, shardahead
from shardahead.checkpoint.shards import resolve_shards
from shardahead.node.topology import local_topology
from shardahead.prefetch.figures import LoadFigures
from shardahead.prefetch.load_record import begin_record
from shardahead.prefetch.options import resolve_options

shards, options, topology = resolve_shards(sys.argv[1]), resolve_options(), local_topology()

def dropping(left, event_number, ready):
    """What is told of each event of the thread, and drops what is in `left` at one of them."""
    events = 0
    def profile(frame, event, _):
        nonlocal events
        events += 1
        if events == event_number:
            ready.wait()
            left.clear()
    return profile

for number in range(int(sys.argv[2])):
    left, ready = [], threading.Event()
    threading.setprofile(dropping(left, number + 1, ready))
    left.append(begin_record("x", shards, options, topology, LoadFigures()))
    threading.setprofile(None)
    ready.set()
    del left
deadline = time.monotonic() + 60
running = lambda: [t for t in threading.enumerate() if t.name == "shardahead-record"]
while running() and time.monotonic() < deadline:
    time.sleep(0.01)
print(len(running()))
'''


def test_a_record_may_be_dropped_by_its_own_thread_wherever_that_is(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    path = write_file(tmp_path / "a", 4 * KIB)
    count = 100
    assert run_python(DROPS, path, str(count), env={"SHARDAHEAD_REPORT": str(folder)}) == 0
    assert [json.loads(file.read_bytes())["ended"] for file in folder.iterdir()] == (
        ["dropped"] * count
    )


def test_a_record_is_dropped_after_the_names_of_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = LoadStart(
        "x",
        tuple(resolve_shards([write_file(tmp_path / "a", 4 * KIB)])),
        resolve_options(),
        local_topology(),
        0.0,
        1,
    )
    record = LoadRecord(load_record._Recorder(str(tmp_path), start, LoadFigures()))
    unraisable: list[Any] = []
    with monkeypatch.context() as exiting:
        exiting.setattr(sys, "unraisablehook", unraisable.append)
        for name in ("os", "queue", "threading"):
            exiting.setattr(load_record, name, None, raising=False)
        del record
    assert unraisable == []
