"""Being told that a prefetch has ended: callbacks, and the end of the process meanwhile. asyncio
is in test_handle_await.py, the rest of the handle in test_handle.py.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import pickle
import sysconfig
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KIB,
    MIB,
    REPOSITORY,
    eventually,
    finish,
    held,
    let_go,
    run_python,
    start_python,
    thread_ids,
    write_file,
)

from shardahead import PrefetchHandle, Report, prefetch_files
from shardahead.prefetch.ending import _POLL_SECONDS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_file(tmp_path / "a", MIB)


class Called:
    """A callback that keeps what it was called with."""

    def __init__(self) -> None:
        self.handles: list[PrefetchHandle] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, handle: PrefetchHandle) -> None:
        self.handles.append(handle)
        self.threads.append(threading.current_thread())

    def wait(self, count: int = 1) -> None:
        eventually(lambda: len(self.handles) >= count, "the callback is not called")
        assert len(self.handles) == count


async def until(handle: PrefetchHandle) -> Report:
    return await handle


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# ---- callbacks ----


@pytest.mark.parametrize("end", [let_go, PrefetchHandle.cancel, PrefetchHandle.stop])
def test_callbacks_are_called_once_in_order_at_the_end(path: Path, end: Any) -> None:
    handle, called = held(path), Called()
    order: list[int] = []
    for number in range(3):
        handle.add_done_callback(lambda _handle, number=number: order.append(number))  # type: ignore[misc]
        handle.add_done_callback(called)
    assert not called.handles
    end(handle)
    called.wait(3)
    handle.stop()
    assert called.handles == [handle] * 3
    assert handle.done
    assert order == [0, 1, 2]
    (thread,) = set(called.threads)
    assert (thread.name, thread.daemon) == ("shardahead-end", True)


def test_at_once_and_here_where_it_has_ended(path: Path) -> None:
    handle, called = prefetch_files(path), Called()
    handle.wait()
    before = thread_ids()
    handle.add_done_callback(called)
    assert called.handles == [handle]
    assert called.threads == [threading.current_thread()]
    assert thread_ids() <= before


def test_an_exception_of_a_callback_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_handle: PrefetchHandle) -> None:
        raise ZeroDivisionError("its own")

    handle, called = held(path), Called()
    handle.add_done_callback(fail)
    handle.add_done_callback(called)
    let_go(handle)
    called.wait()
    handle.add_done_callback(fail)
    failed = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.exc_info[0] for r in failed if r.exc_info] == [ZeroDivisionError] * 2
    with pytest.raises(TypeError, match="must be callable, not int"):
        handle.add_done_callback(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_no_callback_keeps_another_from_being_called(
    path: Path, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_handle: PrefetchHandle) -> None:
        raise error

    handle, called = held(path), Called()
    handle.add_done_callback(fail)
    handle.add_done_callback(called)
    let_go(handle)
    called.wait()
    failed = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.exc_info[0] for r in failed if r.exc_info] == [error]
    with pytest.raises(error):  # in the thread of its own caller
        handle.add_done_callback(fail)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_logger_that_fails_keeps_none_from_being_called(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("of the logger")

    handle, called = held(path), Called()
    handle.add_done_callback(called)
    monkeypatch.setattr(logging.getLogger("shardahead"), "info", fail)
    let_go(handle)
    called.wait()


def test_the_end_is_logged_once_before_the_callbacks(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "shardahead")
    handle, called = held(path), Called()
    seen: list[int] = []
    handle.add_done_callback(lambda _handle: seen.append(len(caplog.records)))
    handle.add_done_callback(called)
    let_go(handle)
    called.wait()
    handle.wait()
    assert seen == [1]
    assert [r.getMessage() for r in caplog.records] == [f"prefetch: {handle.report().text()}"]


@pytest.mark.parametrize("cyclic", [False, True])
def test_dropping_the_handle_cancels_and_calls_back_all_the_same(path: Path, cyclic: bool) -> None:
    before = thread_ids()
    handle, called = held(path), Called()
    handle.add_done_callback(called)
    if cyclic:
        handle.add_done_callback([handle].remove)  # which holds the handle
    dropped = weakref.ref(handle)
    del handle
    gc.collect()
    called.wait()
    assert called.handles[0].cancelled
    assert called.handles[0].done
    del called
    gc.collect()
    eventually(lambda: dropped() is None, "the handle stays")
    eventually(lambda: thread_ids() <= before, "threads stay")


def test_dropped_while_its_thread_ends_it_calls_back_by_itself(path: Path) -> None:
    handle, called = held(path), Called()
    handle.add_done_callback(called)
    callbacks, handle._callbacks[:] = [*handle._callbacks], []
    ending = handle._ending
    handle.cancel()
    eventually(lambda: ending._told, "the thread stays")
    handle._callbacks[:] = callbacks  # as if it had found the handle gone
    del handle
    called.wait()
    assert called.threads == [threading.current_thread()]


def test_two_threads_that_call_back_call_each_once(path: Path) -> None:
    """Where a handle is dropped just as its thread finds it."""
    handle = held(path)
    called: list[int] = []
    handle.stop()
    for _ in range(50):
        handle._callbacks[:] = [lambda _handle, n=n: called.append(n) for n in range(50)]  # type: ignore[misc]
        threads = [threading.Thread(target=handle._call_back) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(called) == sorted(50 * [*range(50)])


def test_a_copy_that_would_cancel_when_it_is_dropped_is_refused(path: Path) -> None:
    handle = held(path)
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a PrefetchHandle cannot be copied or pickled"):
            make(handle)
    assert not handle.cancelled


def test_a_callback_may_use_the_handle(path: Path) -> None:
    handle, called = held(path), Called()
    reports: list[Report] = []

    def use(handle: PrefetchHandle) -> None:
        handle.wait()
        handle.stop()
        reports.append(handle.report())
        handle.add_done_callback(called)

    handle.add_done_callback(use)
    let_go(handle)
    called.wait()
    assert reports[0].complete
    assert called.threads[0].name == "shardahead-end"


def test_dropping_a_handle_that_nobody_waits_for_any_more_ends_its_threads(path: Path) -> None:
    async def give_up(handle: PrefetchHandle) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(handle, 0.01)

    before = thread_ids()
    handle = held(path)
    asyncio.run(give_up(handle))
    assert not handle.cancelled
    del handle
    eventually(lambda: thread_ids() <= before, "threads stay")


def test_without_a_thread_it_is_an_error_that_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    handle, called = held(path), Called()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        handle.add_done_callback(called)
    monkeypatch.undo()
    assert not handle.cancelled
    handle.add_done_callback(called)
    handle.stop()
    called.wait()


@pytest.mark.parametrize("kind", ["callback", "task"])
def test_many_threads_at_once_are_all_told(path: Path, kind: str) -> None:
    for _ in range(20):
        handle = prefetch_files(path, block_size=64 * KIB)
        called, reports = Called(), []

        def ask(handle: PrefetchHandle = handle, called: Called = called) -> None:
            if kind == "callback":
                handle.add_done_callback(called)
            else:
                reports.append(asyncio.run(until(handle)))  # noqa: B023

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        if kind == "callback":
            called.wait(8)
        assert len(reports) == (0 if kind == "callback" else 8)


# ---- the process ----


HELD = """
import asyncio, json, os, sys, time, threading, shardahead
handle = shardahead.prefetch_files(sys.argv[1], block_size=65536, window_bytes=65536, consumer=True)
called = []
handle.add_done_callback(called.append)
async def until():
    return await handle
"""
FORK = """
child = os.fork()
if child == 0:
    handle.add_done_callback(called.append)
    asyncio.run(until())
    handle.cancel()
    handle.stop()
    del handle
    assert called == []
    sys.exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
running = not handle.done and not handle.cancelled and not called
handle.consumed(0, 2**20)
done = asyncio.run(until()).complete
while not called:
    time.sleep(0.001)
print(json.dumps([status, running, done, len(called)]))
"""


def test_a_forked_child_tells_nobody(path: Path) -> None:
    assert run_python(HELD + FORK, path) == [7, True, True, 1]


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit()",
        "del handle",
        "handle.stop(timeout=0)",
        "task = asyncio.new_event_loop().create_task(until()); task.get_loop().run_until_complete("
        "asyncio.sleep(0)); task._log_destroy_pending = False",
        "asyncio.run(asyncio.wait_for(until(), 0.05))",
    ],
)
def test_who_waits_for_the_end_does_not_hold_up_the_exit(path: Path, end: str) -> None:
    script = HELD + f"try:\n    {end or 'pass'}\nexcept asyncio.TimeoutError:\n    pass"
    done = finish(start_python(script, path))
    assert (done.returncode, done.stderr) == (0, "")


NO_THREAD = """
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
os.setuid(65534)
other = shardahead.prefetch_files(sys.argv[1])
other.add_done_callback(called.append)  # which could not begin, and so has ended
try:
    held.add_done_callback(called.append)
except RuntimeError as error:
    called.append(str(error))
async def both():
    task = asyncio.ensure_future(until())
    await asyncio.sleep(0)
    waiting = not task.done()
    handle.consumed(0, 2**20)
    return waiting, (await task).complete
print(json.dumps([called[0] is other, called[1:], *asyncio.run(both())]))
"""


def test_a_system_without_a_thread_left(open_folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody who has reached a limit")
    path = write_file(open_folder / "a", MIB)
    path.chmod(0o644)
    script = HELD.replace("handle.add_done_callback(called.append)", "held = handle")
    found = run_python(script + NO_THREAD, path)
    assert found == [True, ["can't start new thread"], True, True]


def test_the_numbers_are_as_documented() -> None:
    text = (REPOSITORY / "docs" / "settings.md").read_text()
    assert f"`await` looks every {_POLL_SECONDS * 1000:.0f} ms" in text


LATE = """
class Late:
    def __del__(self):
        try:
            self.handle.add_done_callback(print)
        except RuntimeError as error:
            sys.stdout.write(str(error))
late = Late()
late.itself, late.handle = late, shardahead.prefetch_files(
    sys.argv[1], block_size=65536, window_bytes=65536, consumer=True
)
"""


def test_asked_while_the_interpreter_goes_down_it_does_not_wait_for_ever(path: Path) -> None:
    done = finish(start_python(HELD + LATE, path))
    assert (done.returncode, done.stderr) == (0, "")
    if sysconfig.get_config_var("Py_GIL_DISABLED") and not done.stdout:
        return  # without the GIL not every object is finalized at the exit
    assert done.stdout == "can't start new thread at interpreter shutdown"


def test_an_end_at_the_exit(path: Path) -> None:
    """Whichever comes first: the interpreter is not aborted by a thread that comes to it late."""
    script = HELD + "handle.cancel() if int(sys.argv[2]) % 2 else handle.consumed(0, 2**20)"
    for number in range(8):
        done = finish(start_python(script, path, str(number)))
        assert (done.returncode, done.stderr) == (0, "")
