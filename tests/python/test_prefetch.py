"""prefetch_files on real files: what is resident afterwards, and the report.

A prefetch with a consumer that has consumed nothing stands still at the end of its window: that is
how a test holds one running for as long as it needs it.
"""

from __future__ import annotations

import errno
import math
import os
from functools import partial
from pathlib import Path

import pytest
from conftest import (
    KIB,
    MIB,
    SIZES_BYTES,
    check_sum,
    eventually,
    has_done,
    held,
    is_resident,
    let_go,
    make_cold,
    resident_bytes,
    run_python,
    run_ranks,
    thread_ids,
    write_file,
)

from shardahead import prefetch_files
from shardahead.prefetch.options import PARTITIONS, Partition, Strategy

STRATEGIES = ["auto", "fadvise", "readahead", "pread"]
RANK = """
import json, sys, shardahead
handle = shardahead.prefetch_files(sys.argv[2:], partition=sys.argv[1], block_size=256 * 1024)
handle.wait()
print(json.dumps(handle.report().to_dict()))
"""


# ---- what is resident afterwards ----


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_everything_is_resident_afterwards(
    files: list[Path], strategy: Strategy, partition: Partition
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
def test_two_rank_processes_share_the_work(tmp_path: Path, partition: Partition) -> None:
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
def test_spans_bring_in_their_bytes_and_little_else(tmp_path: Path, strategy: Strategy) -> None:
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


@pytest.mark.parametrize("wrong", [None, 3])
def test_spans_that_are_of_no_such_kind(tmp_path: Path, wrong: object) -> None:
    path = write_file(tmp_path / "a", 10)
    with pytest.raises(TypeError, match=f"spans of '{path}' must be a sequence of ranges"):
        prefetch_files(path, spans={path: wrong})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="spans must be a mapping of paths to ranges, not \\["):
        prefetch_files(path, spans=[(0, 1)])  # type: ignore[arg-type]


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
    tmp_path: Path, strategy: Strategy
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
    report = handle.report()
    # Some pages of it have been read to prove that the hard link is the same file.
    assert report.planned_bytes == report.read_bytes + report.resident_bytes == 2 * MIB
    assert report.resident_bytes < MIB


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
