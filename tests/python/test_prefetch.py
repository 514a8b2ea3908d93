"""prefetch_files on real files: what is resident afterwards, the report, and the handle.

A prefetch with a consumer that has consumed nothing stands still at the end of its window: that is
how a test holds one running for as long as it needs it.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KIB,
    MIB,
    NOBODY,
    eventually,
    finish,
    is_resident,
    make_cold,
    resident_bytes,
    run_python,
    run_ranks,
    start_python,
    thread_ids,
    worker_threads,
    write_file,
)

from shardahead import LocalTopology, PrefetchHandle, Report, prefetch_files
from shardahead.policy import PARTITIONS, resolve_options
from shardahead.prefetch import start_prefetch
from shardahead.shards import Shard

STRATEGIES = ["auto", "fadvise", "readahead", "pread"]
SIZES_BYTES = [5 * MIB + 123, 0, 1, 3 * MIB, 4096]
RANK = """
import json, sys, shardahead
handle = shardahead.prefetch_files(sys.argv[2:], partition=sys.argv[1], block_size=256 * 1024)
handle.wait()
print(json.dumps(handle.report().to_dict()))
"""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [write_file(tmp_path / f"{i}.safetensors", n) for i, n in enumerate(SIZES_BYTES)]
    make_cold(*paths)
    return paths


def held(files: Any, **options: Any) -> PrefetchHandle:
    """A prefetch that does not end by itself, with 64 KiB or so brought in."""
    options = {"block_size": 64 * KIB, "window_bytes": 64 * KIB, "consumer": True, **options}
    return prefetch_files(files, **options)


def has_done(handle: PrefetchHandle, count: int) -> bool:
    return handle.progress().done_bytes >= count


def let_go(handle: PrefetchHandle) -> None:
    last = len(handle.shards) - 1
    handle.consumed(last, handle.shards[last].size_bytes)


def check_sum(report: Report) -> None:
    here = report.resident_bytes + report.read_bytes + report.shared_bytes
    assert here + report.failed_bytes + report.left_out_bytes == report.planned_bytes
    assert report.lost_bytes <= report.read_bytes


# ---- what is resident afterwards ----


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_everything_is_resident_afterwards(
    files: list[Path], strategy: str, partition: str
) -> None:
    handle = prefetch_files(files, strategy=strategy, partition=partition, block_size=MIB)
    handle.wait()
    assert all(is_resident(path) for path in files)
    report = handle.report()
    check_sum(report)
    assert report.complete
    assert report.planned_bytes == sum(SIZES_BYTES)
    if strategy != "pread":  # with it the kernel reads ahead of the blocks by itself
        assert (report.read_bytes, report.resident_bytes) == (report.planned_bytes, 0)
    assert (report.strategy, report.partition) == (strategy, partition)
    assert report.strategy_used == ("fadvise" if strategy == "auto" else strategy)
    progress = handle.progress()
    assert progress.done_bytes == progress.planned_bytes == report.planned_bytes


@pytest.mark.parametrize("partition", ["block", "file"])
def test_two_rank_processes_share_the_work(tmp_path: Path, partition: str) -> None:
    files = [write_file(tmp_path / f"{i}.bin", 4 * MIB + i) for i in range(4)]
    make_cold(*files)
    reports = run_ranks(RANK, 2, partition, *files)
    assert all(is_resident(path) for path in files)
    total = sum(path.stat().st_size for path in files)
    assert sum(report["planned_bytes"] for report in reports) == total
    for rank, report in enumerate(reports):
        assert (report["local_rank"], report["local_size"]) == (rank, 2)
        assert report["complete"]
        assert 0.45 * total < report["planned_bytes"] < 0.55 * total


def test_two_rank_processes_claim_the_work(tmp_path: Path) -> None:
    files = [write_file(tmp_path / f"{i}.bin", 4 * MIB + i) for i in range(4)]
    make_cold(*files)
    reports = run_ranks(RANK, 2, "dynamic", *files)
    assert all(is_resident(path) for path in files)
    total = sum(path.stat().st_size for path in files)
    for report in reports:
        assert report["partition"] == "dynamic", report["partition_reason"]
        assert report["complete"]
        assert report["planned_bytes"] == total
    assert sum(report["read_bytes"] for report in reports) == total


def test_what_is_resident_already_is_not_read_again(files: list[Path]) -> None:
    prefetch_files(files).wait()
    handle = prefetch_files(files)
    handle.wait()
    report = handle.report()
    assert (report.resident_bytes, report.read_bytes) == (sum(SIZES_BYTES), 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_spans_bring_in_their_bytes_and_little_else(tmp_path: Path, strategy: str) -> None:
    path = write_file(tmp_path / "big", 64 * MIB)
    other = write_file(tmp_path / "other", 2 * MIB)
    make_cold(path, other)
    spans = [(40 * MIB + 7, MIB), (5, 10), (40 * MIB + 100, MIB), (0, 0), (64 * MIB - 1, 999)]
    handle = prefetch_files([path, other], spans={path: spans}, strategy=strategy)
    handle.wait()
    report = handle.report()
    check_sum(report)
    assert report.planned_bytes == 10 + MIB + 93 + 1 + 2 * MIB
    assert is_resident(other)
    for offset, length in [(5, 10), (40 * MIB + 7, MIB + 93), (64 * MIB - 1, 1)]:
        assert resident_bytes(path, offset, length) == length
    assert resident_bytes(path, 16 * MIB, 16 * MIB) == 0
    assert resident_bytes(path) < 24 * MIB


def test_a_file_with_no_wanted_byte_is_left_alone(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    make_cold(path)
    for spans in ([], [(0, 0)], [(MIB, 10)]):
        handle = prefetch_files(path, spans={path: spans})
        handle.wait()
        assert handle.report().planned_bytes == 0
    assert resident_bytes(path) == 0


@pytest.mark.parametrize("span", [(-1, 5), (5, -1), (2**63, 1), (1, 2**63), (2**62, 2**62)])
def test_a_span_that_is_no_range(tmp_path: Path, span: tuple[int, int]) -> None:
    path = write_file(tmp_path / "a", 10)
    with pytest.raises(ValueError, match=f"spans of '{path}'.*{span[1]}"):
        prefetch_files(path, spans={path: [span]})


def test_a_span_of_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = write_file(tmp_path / "a", 10), write_file(tmp_path / "b", 10)
    with pytest.raises(ValueError, match=f"not in files: '{other}'"):
        prefetch_files(path, spans={other: [(0, 1)]})
    monkeypatch.chdir(tmp_path)
    for name in ("a", b"a", "./a", path):
        assert prefetch_files(path, spans={name: [(0, 3)]}).progress().planned_bytes == 3


def test_without_a_consumer_it_ends_with_the_window_and_says_so(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", 16 * MIB)
    make_cold(path)
    handle = prefetch_files(path, window_bytes=4 * MIB, block_size=MIB)
    handle.wait()
    report = handle.report()
    check_sum(report)
    assert report.done
    assert not report.complete
    assert not report.cancelled
    assert (report.read_bytes, report.left_out_bytes) == (4 * MIB, 12 * MIB)
    assert report.incomplete_reason() == "12.0 MiB left out"
    assert 4 * MIB <= resident_bytes(path) < 6 * MIB


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_is_never_further_ahead_of_its_consumer_than_the_window(
    tmp_path: Path, strategy: str
) -> None:
    file_bytes = 4 * MIB
    files = [write_file(tmp_path / f"{i}", file_bytes) for i in range(3)]
    make_cold(*files)
    window, block = MIB, 256 * KIB
    handle = held(files, window_bytes=window, block_size=block, strategy=strategy)
    total = 3 * file_bytes
    for consumed in range(0, total, 768 * KIB):
        handle.consumed(*divmod(consumed, file_bytes))
        target = min(total, consumed + window)
        eventually(partial(has_done, handle, target), "it stands still too early")
        resident = [resident_bytes(path) for path in files]
        assert sum(resident[math.ceil((target + block) / file_bytes) :]) == 0
        if strategy != "pread":  # with it the kernel reads ahead by itself, inside the file
            assert sum(resident) <= target + 2 * block
    handle.wait()
    assert handle.report().complete


def test_the_window_reaches_what_is_needed_next(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", 8 * MIB)
    make_cold(path)
    handle = held(path)
    handle.consumed(0, 0, needed_offset=5 * MIB)
    eventually(lambda: resident_bytes(path, 0, 5 * MIB) == 5 * MIB, "it does not come")
    assert not handle.done
    with pytest.raises(IndexError):
        handle.consumed(1, 0)


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write_file(tmp_path / "b.bin", 2 * MIB)
    os.link(path, tmp_path / "a.bin")
    os.symlink(path, tmp_path / "c.bin")
    make_cold(path)
    handle = prefetch_files([path, path, tmp_path / "c.bin", tmp_path / "a.bin"])
    handle.wait()
    assert [shard.path for shard in handle.shards] == [str(tmp_path / "a.bin")]
    assert handle.report().planned_bytes == handle.report().read_bytes == 2 * MIB


def test_only_empty_files(tmp_path: Path) -> None:
    before = thread_ids()
    handle = prefetch_files([write_file(tmp_path / "a", 0), write_file(tmp_path / "b", 0)])
    assert handle.done
    assert thread_ids() == before
    handle.wait()
    assert handle.report().complete
    assert handle.progress().planned_bytes == 0


def test_a_name_with_a_newline_and_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\n\xff\xfe \x1b[31m.safetensors"))
    write_file(path, MIB)
    for files in (path, os.fsencode(path), str(path), [path], tmp_path):
        make_cold(path)
        handle = prefetch_files(files, spans={os.fsencode(path): [(0, MIB)]})
        handle.wait()
        assert handle.report().complete
        assert is_resident(path)
    held_back = held(path)
    path.unlink()
    assert held_back.shards[0].path == str(path)


def test_disabled_it_does_nothing(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    before = thread_ids()
    with prefetch_files(files) as handle:
        assert thread_ids() == before
    handle.wait()
    assert handle.report().planned_bytes == 0
    assert sum(map(resident_bytes, files)) == 0


# ---- wrong arguments: before any thread starts ----


def special(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        return Path("/dev/zero")
    return path


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [
        ("missing", FileNotFoundError, errno.ENOENT),
        ("folder", IsADirectoryError, errno.EISDIR),
        ("fifo", OSError, errno.EINVAL),
        ("socket", OSError, errno.EINVAL),
        ("device", OSError, errno.EINVAL),
    ],
)
def test_what_is_no_file_is_refused_before_any_thread_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: type[OSError], code: int
) -> None:
    # Were the FIFO opened for reading, this would hang: nobody writes to it.
    monkeypatch.chdir(tmp_path)  # the path of a socket is limited to 107 bytes
    good = write_file(tmp_path / "a", MIB)
    bad = special(Path(), kind)
    before = thread_ids()
    with pytest.raises(error) as caught:
        prefetch_files([good, bad])
    assert (caught.value.errno, caught.value.filename) == (code, str(bad))
    # The same where a file turns into something else after it was looked at.
    with pytest.raises(error) as caught:
        start_prefetch(
            [Shard(str(path), MIB, 0, 0) for path in (good, bad)],
            resolve_options(),
            LocalTopology(0, 1, "test"),
            spans=[None, None],
            consumer=False,
        )
    assert (caught.value.errno, caught.value.filename) == (code, str(bad))
    assert thread_ids() == before


AS_NOBODY = f"""
import json, os, sys, shardahead
path = sys.argv[1]
os.setuid({NOBODY}) if os.getuid() == 0 else None
before = os.listdir("/proc/self/task")
try:
    with shardahead.prefetch_files([path]) as handle:
        handle.wait()
    print(json.dumps(handle.report().to_dict()))
except PermissionError as error:
    threads = os.listdir("/proc/self/task") == before
    print(json.dumps([type(error).__name__, error.errno, error.filename, threads]))
"""


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", 10)
    path.chmod(0)
    found = run_python(AS_NOBODY, path)
    assert found == ["PermissionError", errno.EACCES, str(path), True]


def test_a_file_of_somebody_else_is_brought_in_all_the_same(open_folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    path = write_file(open_folder / "a", 3 * MIB)
    path.chmod(0o444)
    make_cold(path)
    report = run_python(AS_NOBODY, path)
    assert report["complete"]
    assert report["planned_bytes"] == 3 * MIB
    assert is_resident(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"local_rank": 2, "local_size": 2}, ValueError, "local_rank .*not 2"),
        ({"local_rank": -1, "local_size": 2}, ValueError, "local_rank .*not -1"),
        ({"local_rank": 0, "local_size": 0}, ValueError, "local_size .*not 0"),
        ({"local_rank": 1}, ValueError, "local_size is missing"),
        ({"local_rank": 0.0, "local_size": 1}, TypeError, "local_rank .*not 0.0"),
        ({"strategy": "magic"}, ValueError, "strategy .*auto.*not 'magic'"),
        ({"partition": "magic"}, ValueError, "partition .*block.*not 'magic'"),
        ({"threads": 0}, ValueError, "threads .*not 0"),
        ({"threads": True}, TypeError, "threads .*not True"),
        ({"block_size": 4095}, ValueError, "block_size .*not 4095"),
        ({"block_size": 16.0}, TypeError, "block_size .*not 16.0"),
        ({"window_bytes": -1}, ValueError, "window_bytes .*not -1"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(
    files: list[Path], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = thread_ids()
    with pytest.raises(error, match=message):
        prefetch_files(files, **options)
    assert thread_ids() == before


def test_no_files_and_a_folder_without_any(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="files is empty"):
        prefetch_files([])
    with pytest.raises(ValueError, match=str(tmp_path)):
        prefetch_files(tmp_path)


# ---- files that change under a running prefetch ----


def test_a_file_that_became_shorter_is_an_error_of_its_own(tmp_path: Path) -> None:
    files = [write_file(tmp_path / name, MIB) for name in ("a", "b", "c")]
    make_cold(*files)
    handle = held(files)
    os.truncate(files[1], 300 * KIB)
    let_go(handle)
    handle.wait()
    report = handle.report()
    check_sum(report)
    assert handle.failed
    assert report.failed_bytes >= MIB - 512 * KIB
    assert {path for path, _ in handle.errors} == {str(files[1])}
    for _, error in handle.errors:
        assert error.errno == errno.ENODATA
        assert "became shorter" in str(error)
        assert getattr(error, "offset", 0) >= 300 * KIB
    assert is_resident(files[0])
    assert is_resident(files[2])


MANY_MISSING = """
import json, logging, resource, sys, shardahead
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))  # most of the files wait closed
records = []
class Handler(logging.Handler):
    def emit(self, record): records.append((record.levelname, record.getMessage()))
logging.getLogger("shardahead").addHandler(Handler())
logging.getLogger("shardahead").setLevel(logging.DEBUG)
folder = shardahead.prefetch_files(
    sys.argv[1], block_size=4096, window_bytes=4096, consumer=True
)
import os
for shard in folder.shards[20:]:
    os.unlink(shard.path)
folder.consumed(len(folder.shards) - 1, 4096)
folder.wait()
folder.wait()
folder.stop()
errors = [(path, error.errno) for path, error in folder.errors]
print(json.dumps({"records": records, "errors": errors, "report": folder.report().to_dict()}))
"""


def test_many_failed_files_are_one_warning(tmp_path: Path) -> None:
    for i in range(120):
        write_file(tmp_path / f"{i:03}.bin", 4096)
    found = run_python(MANY_MISSING, tmp_path)
    ((level, message),) = found["records"]
    assert level == "WARNING"
    assert "100 errors" in message
    assert found["report"]["failed_bytes"] == 100 * 4096
    assert found["report"]["error_count"] == 100
    # Not all of them are kept.
    assert len(found["errors"]) == len(found["report"]["errors"]) == 64
    assert all(code == errno.ENOENT for _, code in found["errors"])


# ---- the handle ----


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


def test_the_end_of_the_with_block_stops_it(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    before = worker_threads()
    with held(path) as handle:
        pass
    assert handle.done
    with pytest.raises(ZeroDivisionError), held(path) as handle:
        raise ZeroDivisionError
    assert handle.done
    assert handle.cancelled
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
    handle.fetch_now(0, 0, 100000)
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
        handle.fetch_now(0, (i + 1) * MIB + 5, MIB - 10)
        assert resident_bytes(path, (i + 1) * MIB, MIB) == MIB
        handle.fetch_now(0, 0, 0)
        with pytest.raises(IndexError):
            handle.fetch_now(1, 0, 1)
        assert handle.report().waited_seconds > 0
