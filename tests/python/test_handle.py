"""The handle of a running prefetch: waiting, cancelling, stopping, and the end of its process."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import (
    KIB,
    MIB,
    check_sum,
    eventually,
    finish,
    held,
    let_go,
    make_cold,
    resident_bytes,
    run_python,
    start_python,
    worker_threads,
    write_file,
)

from shardahead import PrefetchHandle, prefetch_files
from shardahead.prefetch.consumer import PrefetchConsumer


def test_wait_gives_up_after_its_timeout_and_only_then(tmp_path: Path) -> None:
    handle = held(write_file(tmp_path / "a", MIB))
    for timeout in (0, -1, 0.12):
        with pytest.raises(TimeoutError, match=f"within {timeout} s"):
            handle.wait(timeout)
    assert not handle.done
    let_go(handle)
    handle.wait(60)
    assert handle.done
    handle.wait(0)


def test_the_public_names_are_these(tmp_path: Path) -> None:
    with held(write_file(tmp_path / "a", MIB)) as handle:
        assert [name for name in dir(handle) if name[0] != "_"] == [
            "add_done_callback",
            "cancel",
            "cancelled",
            "consumed",
            "done",
            "errors",
            "failed",
            "progress",
            "report",
            "shards",
            "stop",
            "wait",
        ]


def test_cancel_and_stop(tmp_path: Path) -> None:
    for end in (PrefetchHandle.cancel, PrefetchHandle.stop):
        handle = held(write_file(tmp_path / "a", MIB))
        end(handle)
        handle.wait(60)
        report = handle.report()
        check_sum(report)
        assert handle.done
        assert handle.cancelled
        assert not handle.failed
        assert handle.errors == ()
        assert report.left_out_bytes >= MIB - 128 * KIB
        assert "cancelled" in str(report.incomplete_reason())
        handle.stop()
        handle.cancel()


@pytest.mark.parametrize("error", [None, ValueError])
def test_the_end_of_a_with_block_cancels_and_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None
) -> None:
    waited: list[float | None] = []
    monkeypatch.setattr(PrefetchHandle, "_wait", lambda _self, timeout: waited.append(timeout))
    with suppress(ValueError), held(write_file(tmp_path / "a", MIB)) as handle:
        if error is not None:
            raise error
    assert handle.cancelled
    assert waited == [0]
    monkeypatch.undo()
    handle.wait(60)


def test_stop_after_the_end_changes_nothing(files: list[Path]) -> None:
    handle = prefetch_files(files)
    handle.wait()
    before = handle.report()
    handle.stop()
    handle.cancel()
    assert handle.report() == before
    assert handle.report().complete
    assert not handle.cancelled


def test_progress_only_grows_and_ends_with_all(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", 8 * MIB)
    make_cold(path)
    handle = prefetch_files(path, block_size=64 * KIB, threads=1)
    seen = []
    while not handle.done:
        seen.append(handle.progress().done_bytes)
    seen.append(handle.progress().done_bytes)
    assert seen == sorted(seen)
    assert seen[-1] == handle.progress().planned_bytes == 8 * MIB


def test_repr_says_how_far_it_is(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    handle = held(path)
    eventually(lambda: handle.progress().done_bytes == 64 * KIB, "it stands still too early")
    assert repr(handle) == "<PrefetchHandle running, 65536 of 1048576 bytes, 1 files>"
    handle.stop()
    assert repr(handle).startswith("<PrefetchHandle cancelled, ")
    done = prefetch_files(path)
    done.wait()
    assert repr(done).startswith("<PrefetchHandle done, 1048576 of 1048576 bytes")


def test_dropping_the_handle_ends_its_threads(tmp_path: Path) -> None:
    before = worker_threads()
    handle = held(write_file(tmp_path / "a", MIB), threads=3)
    eventually(lambda: len(worker_threads() - before) == 3, "not as many threads as asked for")
    del handle
    eventually(lambda: worker_threads() <= before, "the threads stay")


def test_the_end_of_the_with_block_ends_it(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    before = worker_threads()
    with held(path) as handle:
        pass
    assert handle.cancelled
    handle.wait(60)
    with pytest.raises(ZeroDivisionError), held(path) as handle:
        raise ZeroDivisionError
    assert handle.cancelled
    handle.wait(60)
    eventually(lambda: worker_threads() <= before, "the threads stay")


def test_many_threads_may_wait_for_one_prefetch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "shardahead")
    handle = held(write_file(tmp_path / "a", MIB))
    waiting = [threading.Thread(target=handle.wait) for _ in range(8)]
    for thread in waiting:
        thread.start()
    let_go(handle)
    for thread in waiting:
        thread.join(60)
    assert not any(thread.is_alive() for thread in waiting)
    ((_, level, message),) = caplog.record_tuples
    assert level == logging.INFO
    assert message == f"prefetch: {handle.report().text()}"


HELD = """
import json, os, sys, shardahead
from shardahead.prefetch.consumer import PrefetchConsumer
handle = shardahead.prefetch_files(
    sys.argv[1], block_size=65536, window_bytes=65536, consumer=True
)
"""
FORK = """
child = os.fork()
if child == 0:
    handle.wait()
    handle.cancel()
    handle.stop()
    repr(handle), handle.done, handle.failed, handle.errors, handle.progress(), handle.report()
    handle.consumed(0, 0)
    PrefetchConsumer(handle).fetch_now(0, 0, 100000)
    other = shardahead.prefetch_files(sys.argv[1])
    other.wait()
    sys.exit(0 if other.report().complete else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
running = not handle.done and not handle.cancelled
handle.consumed(0, 2**20)
handle.wait()
print(json.dumps([status, running, handle.report().complete]))
"""


def test_a_fork_leaves_the_prefetch_to_the_parent(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    make_cold(path)
    assert run_python(HELD + FORK, path) == [0, True, True]


@pytest.mark.parametrize("end", ["", "sys.exit()", "del handle", "handle.stop(timeout=0)"])
def test_a_running_prefetch_does_not_hold_up_the_exit(tmp_path: Path, end: str) -> None:
    path = write_file(tmp_path / "a", MIB)
    done = finish(start_python(HELD + end, path))
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_interrupts_wait(tmp_path: Path) -> None:
    script = (
        HELD
        + """
try:
    print("waiting", flush=True)
    handle.wait()
except KeyboardInterrupt:
    print("interrupted", handle.done)
"""
    )
    process = start_python(script, write_file(tmp_path / "a", MIB))
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.returncode, done.stdout) == (0, "interrupted False\n")


def test_fetch_now_brings_a_range_in_at_any_time(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", 4 * MIB)
    make_cold(path)
    states: list[Callable[[PrefetchHandle], object]] = [repr, PrefetchHandle.stop]
    for i, prepare in enumerate(states):
        handle = held(path)
        prepare(handle)
        consumer = PrefetchConsumer(handle)
        consumer.fetch_now(0, (i + 1) * MIB + 5, MIB - 10)
        assert resident_bytes(path, (i + 1) * MIB, MIB) == MIB
        consumer.fetch_now(0, 0, 0)
        with pytest.raises(IndexError):
            consumer.fetch_now(1, 0, 1)
        assert handle.report().waited_seconds > 0
