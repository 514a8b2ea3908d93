"""Under asyncio a prefetch is awaited; the loop goes on, and who gives up ends no prefetch.

Callbacks are in test_handle_end.py.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, eventually, held, let_go, write_file

from shardahead import PrefetchHandle, Report


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_file(tmp_path / "a", MIB)


async def until(handle: PrefetchHandle) -> Report:
    return await handle


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_await_gives_the_report_to_many(path: Path) -> None:
    async def wait_and_let_go() -> list[Report]:
        handle = held(path)
        tasks = [asyncio.ensure_future(until(handle)) for _ in range(5)]
        for _ in range(100):  # the loop goes on
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        let_go(handle)
        reports = [*await asyncio.gather(*tasks, handle), await handle]
        assert handle.done
        return reports

    reports = asyncio.run(wait_and_let_go())
    assert len(reports) == 7
    assert all(report.complete for report in reports)


def test_a_cancelled_prefetch_and_one_that_has_failed_give_their_report(
    path: Path, tmp_path: Path
) -> None:
    async def cancelled() -> Report:
        handle = held(path)
        asyncio.get_running_loop().call_soon(handle.cancel)
        return await handle

    report = asyncio.run(cancelled())
    assert report.cancelled
    assert report.done
    gone = write_file(tmp_path / "b", MIB)
    handle = held(gone)
    gone.write_bytes(b"")
    let_go(handle)
    assert asyncio.run(until(handle)).done


def test_a_task_that_is_cancelled_leaves_the_prefetch_alone(path: Path) -> None:
    async def cancel_one() -> Report:
        handle = held(path)
        one, other = (asyncio.ensure_future(until(handle)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        assert not handle.cancelled
        assert not other.done()
        let_go(handle)
        return await other

    assert asyncio.run(cancel_one()).complete


def test_a_waiting_task_holds_the_prefetch(path: Path) -> None:
    async def hold() -> None:
        dropped, task = start()
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()
        handle = dropped()
        assert handle is not None
        assert not handle.cancelled
        let_go(handle)
        assert (await task).complete

    def start() -> tuple[Any, asyncio.Task[Report]]:
        handle = held(path)
        return weakref.ref(handle), asyncio.ensure_future(until(handle))

    asyncio.run(hold())


def test_a_loop_that_is_closed_before_the_end(path: Path) -> None:
    called: list[PrefetchHandle] = []
    handle = held(path)
    loop = asyncio.new_event_loop()
    task = loop.create_task(until(handle))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    handle.add_done_callback(called.append)
    let_go(handle)
    eventually(lambda: called, "the callback is not called")
    assert not task.done()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert asyncio.run(until(handle)).complete


def test_without_a_thread_the_end_is_polled_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait() -> Report:
        handle = held(path)
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        task = asyncio.ensure_future(until(handle))
        await asyncio.sleep(0)
        assert not task.done()
        let_go(handle)
        return await task

    assert asyncio.run(wait()).complete


def test_await_takes_an_event_loop(path: Path) -> None:
    handle = held(path)
    with pytest.raises(RuntimeError, match="no running event loop"):
        handle.__await__().send(None)
    handle.stop()
