"""What is in the page cache is said exactly, or said to be unknown; and evict drops it."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest
from conftest import (
    KIB,
    MIB,
    NOBODY,
    PAGE_BYTES,
    is_resident,
    make_cold,
    resident_bytes,
    run_python,
    write_file,
)

from shardahead import FileResidency, evict, residency

SIZE_BYTES = 3 * MIB + 1234


def read_pages(path: Path, pages: list[int]) -> None:
    """Reads one byte of each of these pages, without readahead."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for page in pages:
            assert len(os.pread(descriptor, 1, page * PAGE_BYTES)) == 1
    finally:
        os.close(descriptor)


def test_none_some_and_all(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", SIZE_BYTES)
    make_cold(path)
    cold = FileResidency(str(path), SIZE_BYTES, 0, "cachestat", "")
    assert residency(path) == [cold]
    for read, pages in [([0, 7, 100], 3), ([7, 8, 500], 5)]:
        read_pages(path, read)
        assert residency(path)[0].resident_bytes == pages * PAGE_BYTES == resident_bytes(path)
    path.read_bytes()
    assert residency(path) == [FileResidency(str(path), SIZE_BYTES, SIZE_BYTES, "cachestat", "")]


def test_looking_brings_nothing_in(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", SIZE_BYTES)
    make_cold(path)
    for _ in range(3):
        residency(path)
    assert resident_bytes(path) == 0


def test_files_come_in_the_order_in_which_they_are_consumed(tmp_path: Path) -> None:
    names = ["1.safetensors", "2.safetensors", "10.safetensors"]
    paths = [write_file(tmp_path / name, size) for name, size in zip(names, (1, 0, 3), strict=True)]
    expected = [(str(path), path.stat().st_size) for path in paths]
    for files in (tmp_path, paths[::-1], [*paths, *paths]):
        for ask in (residency, evict):
            assert [(file.path, file.size_bytes) for file in ask(files)] == expected


def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a\n\xff.bin")
    write_file(Path(path), 10)
    assert [file.path for file in residency(path)] == [path]
    assert [file.path for file in evict([os.fsencode(path)])] == [path]


def test_evict_drops_what_was_read(tmp_path: Path) -> None:
    path, other = write_file(tmp_path / "a", SIZE_BYTES), write_file(tmp_path / "b", KIB)
    assert is_resident(path)
    assert evict(path) == [FileResidency(str(path), SIZE_BYTES, 0, "cachestat", "")]
    assert resident_bytes(path) == 0
    assert is_resident(other)
    evict(path)


def test_evict_writes_back_what_was_just_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    content = os.urandom(SIZE_BYTES)
    path.write_bytes(content)  # all of it dirty
    assert [file.resident_bytes for file in evict(path)] == [0]
    assert resident_bytes(path) == 0
    assert path.read_bytes() == content


def test_evict_leaves_what_a_process_has_mapped(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", SIZE_BYTES)
    make_cold(path)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        mapped.madvise(mmap.MADV_RANDOM)  # a fault brings in its own page alone
        touched = [0, 300, 700]
        content = bytes(mapped[page * PAGE_BYTES] for page in touched)
        path.read_bytes()
        (left,) = evict(path)
        assert left.resident_bytes == resident_bytes(path)
        assert len(touched) * PAGE_BYTES <= resident_bytes(path) < SIZE_BYTES // 2
        for page in touched:
            assert resident_bytes(path, page * PAGE_BYTES, PAGE_BYTES) == PAGE_BYTES
        assert bytes(mapped[page * PAGE_BYTES] for page in touched) == content
        mapped.close()
    assert [file.resident_bytes for file in evict(path)] == [0]


AS_NOBODY = f"""
import dataclasses, json, os, sys, shardahead
os.setgid({NOBODY})
os.setuid({NOBODY})
ask = getattr(shardahead, sys.argv[1])
print(json.dumps([dataclasses.asdict(file) for file in ask(sys.argv[2])]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("command", ["residency", "evict"])
def test_what_the_kernel_does_not_tell_is_unknown(open_folder: Path, command: str) -> None:
    path = write_file(open_folder / "a", SIZE_BYTES)
    path.chmod(0o444)
    make_cold(path)
    read_pages(path, [3])
    (found,) = run_python(AS_NOBODY, command, path)
    assert found["size_bytes"] == SIZE_BYTES
    if found["resident_bytes"] is not None and found["source"] == "cachestat":
        assert found["resident_bytes"] == resident_bytes(path)
        pytest.skip("this kernel answers cachestat(2) for the files of others")
    assert found["resident_bytes"] is None
    assert found["source"] == "unknown"
    assert "owner" in found["reason"]
    assert os.strerror(errno.EPERM) in found["reason"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_write_is_told(open_folder: Path) -> None:
    path = write_file(open_folder / "a", SIZE_BYTES)
    path.chmod(0o666)
    make_cold(path)
    read_pages(path, [3, 4])
    (found,) = run_python(AS_NOBODY, "residency", path)
    assert found["resident_bytes"] == 2 * PAGE_BYTES


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for ask in (residency, evict):
        with pytest.raises(ValueError, match="no shards"):
            ask(tmp_path)
        with pytest.raises(FileNotFoundError) as caught:
            ask(tmp_path / "missing")
        assert caught.value.filename == str(tmp_path / "missing")
        with pytest.raises(OSError, match="FIFO"):
            ask([tmp_path / "fifo"])
        with pytest.raises(IsADirectoryError):
            ask([tmp_path / "folder"])
