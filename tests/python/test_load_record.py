"""SHARDAHEAD_REPORT: each load writes one file about itself at its end, whatever its end is; none
of them waits for it or fails by it. What the command makes of it is in test_report_command.py, a
record that is dropped at an odd place in test_load_record_drops.py.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KIB,
    MIB,
    clean_environment,
    eventually,
    finish,
    has_done,
    held,
    let_go,
    make_cold,
    messages,
    run_python,
    run_ranks,
    start_python,
    write_file,
)

from shardahead import Options, prefetch_files, prefetching, safetensors_weights_iterator
from shardahead.checkpoint.shards import resolve_checkpoint
from shardahead.command import cli
from shardahead.weights import checkpoint_pass

NAME = re.compile(
    r"\d{8}T\d{6}\.\d{6}Z-[A-Za-z0-9._-]+-rank(?P<rank>\d+)-pid(?P<pid>\d+)-(?P<number>\d+)\.json"
)
COLUMNS = ("done_bytes", "read_bytes", "consumed_bytes", "claimed_bytes", "window_bytes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the reports. It need not be there."""
    return tmp_path / "not yet" / "reports"


def written(folder: Path, count: int = 1) -> list[dict[str, Any]]:
    """The documents, once there are so many, and none unfinished; in the order of time."""
    eventually(lambda: len([*folder.glob("*.json")]) >= count, "no report is written")
    eventually(lambda: not [*folder.glob(".*")], "a report stays unfinished")
    names = sorted(os.listdir(folder))
    assert len(names) == count
    assert all(NAME.fullmatch(name) for name in names)
    return [json.loads((folder / name).read_bytes()) for name in names]


def one(folder: Path) -> dict[str, Any]:
    return written(folder)[0]


def record_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shardahead-record"]


# ---- what is in it ----


def test_it_holds_the_report_and_how_it_came_to_that(tmp_path: Path, folder: Path) -> None:
    paths = [write_file(tmp_path / f"{i}.safetensors", 2 * MIB + i) for i in range(3)]
    make_cold(*paths)
    size_bytes = 6 * MIB + 3
    options = Options(report=folder, threads=2, block_size=256 * KIB)
    handle = prefetch_files(paths, options=options)
    handle.wait()
    found = one(folder)
    assert found["schema"] == "shardahead/load/1"
    assert (found["entry"], found["ended"], found["reason"]) == ("prefetch_files", "done", None)
    assert found["report"] == json.loads(json.dumps(handle.report().to_dict()))
    assert found["report"]["read_bytes"] == found["read_bytes"] == size_bytes
    assert found["total_bytes"] == size_bytes
    assert found["files"] == [
        {"path": str(path), "size_bytes": path.stat().st_size} for path in paths
    ]
    assert found["settings"]["threads"] == 2
    assert found["settings"]["block_bytes"] == 256 * KIB
    assert found["settings"]["report"] == str(folder)
    assert found["process"]["pid"] == os.getpid()
    assert found["node"]["kernel"] == os.uname().release
    assert found["versions"]["shardahead"]
    series = found["series"]
    assert series["seconds"] == sorted(series["seconds"])
    assert {len(series[name]) for name in COLUMNS} == {len(series["seconds"])}
    assert series["read_bytes"][-1] == series["done_bytes"][-1] == size_bytes
    assert series["claimed_bytes"][-1] == 0
    assert series["read_bytes"] == sorted(series["read_bytes"])


def test_samples_tell_what_is_brought_in_and_consumed(tmp_path: Path, folder: Path) -> None:
    path = write_file(tmp_path / "a", 4 * MIB)
    make_cold(path)
    handle = held([path], options=Options(report=folder), window_bytes=MIB)
    eventually(lambda: has_done(handle, MIB), "nothing is brought in")
    handle.consumed(0, MIB)
    eventually(lambda: has_done(handle, 2 * MIB), "the window does not move")
    let_go(handle)
    series = one(folder)["series"]
    assert series["window_bytes"][0] == MIB
    assert series["consumed_bytes"][-1] == series["done_bytes"][-1] == 4 * MIB
    for done, consumed in zip(series["done_bytes"], series["consumed_bytes"], strict=True):
        assert done <= consumed + MIB + 64 * KIB or done == 4 * MIB


def test_a_path_of_any_bytes_can_be_had_back(tmp_path: Path, folder: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\n\x80gr\xc3\xbc\xc3\x9f.safetensors"
    with open(path, "wb") as file:
        file.write(b"x" * 5000)
    prefetch_files([path], options=Options(report=folder)).wait()
    (found,) = one(folder)["files"]
    assert os.fsencode(found["path"]) == path
    assert os.stat(found["path"]).st_size == found["size_bytes"] == 5000


# ---- whose loads, and which ends ----


def test_every_entry_writes_one(numbered: Path, folder: Path) -> None:
    options = Options(report=folder)
    prefetch_files(numbered, options=options).wait()
    assert one(folder)["entry"] == "prefetch_files"
    with prefetching(numbered, options=options):
        pass
    assert [found["entry"] for found in written(folder, 2)][1:] == ["prefetching"]
    total_bytes = sum(len(t) for _, t in safetensors_weights_iterator(numbered, options=options))
    found = written(folder, 3)[2]
    assert found["entry"] == "safetensors_weights_iterator"
    assert (found["ended"], found["mode"]) == ("done", "mmap")
    assert found["series"]["consumed_bytes"][-1] >= total_bytes == 24 * MIB
    with safetensors_weights_iterator(numbered, mode="pread", options=options) as weights:
        next(weights)
    found = written(folder, 4)[3]
    assert (found["ended"], found["mode"], found["report"]) == ("closed", "pread", None)
    assert found["read_bytes"] >= found["consumed_bytes"]


def test_files_of_torch_write_one(tmp_path: Path, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    from shardahead import pt_weights_iterator

    torch.save({"a": torch.zeros(MIB, dtype=torch.uint8)}, tmp_path / "m.pt")
    assert len([*pt_weights_iterator(tmp_path / "m.pt", options=Options(report=folder))]) == 1
    found = one(folder)
    assert (found["entry"], found["ended"]) == ("pt_weights_iterator", "done")
    assert found["consumed_bytes"] == found["total_bytes"] == (tmp_path / "m.pt").stat().st_size


@pytest.mark.usefixtures("capsys")
def test_the_command_writes_one(
    numbered: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDAHEAD_REPORT", str(folder))
    assert cli.main(["warm", str(numbered)]) == 0
    assert one(folder)["entry"] == "warm"


def test_a_handle_that_is_dropped_is_cancelled_and_writes_one(tmp_path: Path, folder: Path) -> None:
    path = write_file(tmp_path / "a", 4 * MIB)
    make_cold(path)
    handle = held([path], options=Options(report=folder))
    del handle
    found = one(folder)
    assert found["ended"] == "dropped"
    assert found["report"]["cancelled"]
    assert found["report"]["left_out_bytes"] > 0
    assert "left out" in found["reason"]


def test_an_iterator_that_was_never_asked_writes_one(numbered: Path, folder: Path) -> None:
    weights = safetensors_weights_iterator(numbered, options=Options(report=folder))
    del weights
    assert one(folder)["ended"] == "dropped"


def test_a_file_that_goes_before_it_is_opened_is_told_before_there_is_a_record(
    numbered: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    begun: list[str] = []

    def gone(*arguments: Any) -> Any:
        found = resolve_checkpoint(*arguments)
        os.unlink(found.shards[-1].path)
        return found

    monkeypatch.setattr(checkpoint_pass, "resolve_checkpoint", gone)
    monkeypatch.setattr(checkpoint_pass, "begin_record", lambda entry, *_: begun.append(entry))
    with pytest.raises(FileNotFoundError):
        safetensors_weights_iterator(numbered, options=Options(report=folder))
    assert begun == []


def test_a_load_that_fails_writes_one(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        list(
            safetensors_weights_iterator(
                [tmp_path / "a.safetensors"], options=Options(report=folder)
            )
        )
    assert one(folder)["ended"] == "closed"


EXITS = """
import os, sys, shardahead
handle = shardahead.prefetch_files(sys.argv[1])
print("{}")
if len(sys.argv) > 2:
    exec(sys.argv[2])
"""


def test_a_process_that_ends_at_once_writes_one(tmp_path: Path, folder: Path) -> None:
    path = write_file(tmp_path / "a", 4 * MIB)
    run_python(EXITS, path, env={"SHARDAHEAD_REPORT": str(folder)})
    found = one(folder)
    assert found["report"]["planned_bytes"] == 4 * MIB
    assert found["ended"] in ("exit", "done")


CHILD = """
import json, multiprocessing, sys, shardahead
def load():
    shardahead.prefetch_files(sys.argv[1]).wait()
if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=load)
    child.start()
    child.join()
    print(json.dumps(child.pid))
"""


def test_a_child_of_multiprocessing_writes_one(tmp_path: Path, folder: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    pid = run_python(CHILD, path, env={"SHARDAHEAD_REPORT": str(folder)})
    assert one(folder)["process"]["pid"] == pid


FORKS = """
import json, os, sys, shardahead
handle = shardahead.prefetch_files(sys.argv[1], consumer=True)
child = os.fork()
if child == 0:
    handle.stop()
    del handle
    sys.exit(0)
status = os.waitpid(child, 0)[1]
print(json.dumps({"status": status, "pid": os.getpid()}))
"""


def test_a_forked_child_writes_none_of_its_parents(tmp_path: Path, folder: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    found = run_python(FORKS, path, env={"SHARDAHEAD_REPORT": str(folder)})
    assert found["status"] == 0
    assert one(folder)["process"]["pid"] == found["pid"]


def test_ranks_and_loads_write_files_of_their_own(tmp_path: Path, folder: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    script = """
import sys, shardahead
for _ in range(3):
    shardahead.prefetch_files(sys.argv[1]).wait()
print("{}")
"""
    run_ranks(script, 3, path, env={"SHARDAHEAD_REPORT": str(folder)})
    found = written(folder, 9)
    loads = {(f["process"]["pid"], f["process"]["number"]) for f in found}
    assert len(loads) == 9
    assert sorted(f["process"]["local_rank"] for f in found) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({f["node"]["boot_id"] for f in found}) == 1


# ---- what must not be ----


def test_without_the_setting_there_is_no_thread_and_no_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    eventually(lambda: not record_threads(), "a thread stays")
    handle = held([path])
    assert not record_threads()
    handle.stop()
    assert os.listdir(tmp_path) == ["a"]


def test_a_load_does_not_fail_where_nothing_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_file(tmp_path / "a", MIB)
    with caplog.at_level(logging.WARNING, "shardahead"):
        handle = prefetch_files([path], options=Options(report=path / "below a file"))
        handle.wait()
        eventually(lambda: caplog.records, "nothing is said")
    assert handle.report().complete
    (said,) = messages(caplog)
    assert "no report of a load is written" in said
    assert "below a file" in said


HANGS = """
import os, sys, threading, shardahead
os.makedirs = lambda *_, **__: threading.Event().wait()  # a server that does not answer
handle = shardahead.prefetch_files(sys.argv[1])
handle.wait()
print("loaded", flush=True)
"""


def test_a_folder_that_hangs_holds_up_neither_load_nor_exit(tmp_path: Path, folder: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    process = start_python(HANGS, path, env={"SHARDAHEAD_REPORT": str(folder)})
    done = finish(process)
    assert (done.returncode, done.stdout) == (0, "loaded\n"), done.stderr


def test_a_thread_that_cannot_be_had_is_said_once(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "a", MIB)

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with caplog.at_level(logging.WARNING, "shardahead"):
        handle = prefetch_files([path], options=Options(report=folder))
        handle.wait()
    assert handle.report().complete
    assert "can't start new thread" in messages(caplog)[0]
    assert not folder.exists()


def test_the_environment_of_these_tests_has_no_such_setting() -> None:
    assert "SHARDAHEAD_REPORT" not in clean_environment()
