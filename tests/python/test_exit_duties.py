"""Threads that an exit of the process waits for: at each kind of exit, in no other process."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_SECONDS, finish, run_python, start_python

from shardahead.prefetch.exit_duties import ExitDuties

#: A duty that ends when it is hurried, and then writes a file of its name and process.
DUTY = """
import json, multiprocessing, os, queue, sys
from shardahead.prefetch.exit_duties import ExitDuties
duties = ExitDuties(60.0)
def start(name):
    over = queue.SimpleQueue()
    def work():
        who = over.get()
        with open(os.path.join(sys.argv[1], f"{name} {os.getpid()}"), "w") as file:
            file.write(str(who))
    duties.start("duty", work, lambda: over.put(os.getpid()))
"""
CHILD = """
if __name__ == "__main__":
    start("parent")
    child = multiprocessing.get_context(sys.argv[2]).Process(target=start, args=("child",))
    child.start()
    child.join()
    print(json.dumps({"child": child.pid, "parent": os.getpid(), "status": child.exitcode}))
"""
FORK = """
start("parent")
child = os.fork()
if child == 0:
    if sys.argv[2] == "its own":
        start("child")
    sys.exit(0)
status = os.waitpid(child, 0)[1]
print(json.dumps({"child": child, "parent": os.getpid(), "status": status}))
"""


def written(folder: Path) -> dict[str, str]:
    """What each duty wrote: the process that hurried it."""
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "written"
    path.mkdir()
    return path


@pytest.mark.parametrize("way", ["", "sys.exit(3)", "raise KeyboardInterrupt"])
def test_at_the_exit_of_the_interpreter(way: str, folder: Path) -> None:
    process = start_python(f"{DUTY}start('a')\nstart('b')\n{way}", folder)
    finish(process)
    pid = str(process.pid)
    assert written(folder) == {f"a {pid}": pid, f"b {pid}": pid}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_at_the_end_of_a_child_of_multiprocessing(
    method: str, folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"  # a child that is spawned imports it
    script.write_text(DUTY + CHILD)
    run = "import runpy, sys; sys.argv[0:1] = []; runpy.run_path(sys.argv[0], run_name='__main__')"
    found = run_python(run, script, folder, method)
    assert found["status"] == 0
    child, parent = str(found["child"]), str(found["parent"])
    assert written(folder) == {f"child {child}": child, f"parent {parent}": parent}


@pytest.mark.parametrize("what", ["nothing", "its own"])
def test_a_forked_child_does_nothing_for_its_parent(what: str, folder: Path) -> None:
    found = run_python(DUTY + FORK, folder, what)
    assert found["status"] == 0
    child, parent = str(found["child"]), str(found["parent"])
    expected = {f"parent {parent}": parent}
    if what == "its own":
        expected[f"child {child}"] = child
    assert written(folder) == expected


def test_one_that_does_not_end_holds_up_no_exit(folder: Path) -> None:
    script = f"""{DUTY}
duties = ExitDuties(0.1)
duties.start("duty", queue.SimpleQueue().get, lambda: None)
print(json.dumps("done"))
"""
    assert run_python(script, folder) == "done"


def test_all_are_told_before_one_is_waited_for_and_all_have_one_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[Any] = []
    now = 100.0
    over = threading.Event()

    def wait() -> None:
        over.wait(HANG_SECONDS)

    def join(_thread: threading.Thread, timeout: float) -> None:
        nonlocal now
        happened.append(round(timeout, 3))
        now += min(timeout, 1.5)

    duties = ExitDuties(2.0)
    try:
        for _ in range(3):
            duties.start("duty", wait, lambda: happened.append("told"))
        with monkeypatch.context() as exiting:
            exiting.setattr(time, "monotonic", lambda: now)
            exiting.setattr(threading.Thread, "join", join)
            duties._end()
    finally:
        over.set()
    assert happened == ["told", "told", "told", 2.0, 0.5, 0.0]


def test_what_is_over_or_could_not_begin_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    duties = ExitDuties(HANG_SECONDS)
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())

    duties.start("duty", work, lambda: told.append("over"))
    while not threads:
        os.sched_yield()
    threads[0].join()

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            duties.start("duty", lambda: None, lambda: told.append("not begun"))
    duties._end()
    assert told == []
