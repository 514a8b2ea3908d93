"""pt_weights_iterator: how files are got at, and files that are no checkpoint, are damaged, or are
exchanged under the load.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, MakeMount
from pt_support import by_torch, edited, items_of, packed, read, records_of, saved

from shardahead import pt_weights_iterator
from shardahead.prefetch.options import Mode

torch = pytest.importorskip("torch")

ONES = torch.ones(3)
MODES = ["auto", "mmap", "pread"]


# ---- how it is got at ----


def is_mapped(tensor: Any, path: Path) -> bool:
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            return line.endswith(str(path))
    return False


def test_what_is_plain_is_mapped_and_lives_on(tmp_path: Path) -> None:
    path, content = tmp_path / "a.pt", {"a": torch.rand(5000), "n": 7, "b": torch.rand(77, 3)}
    torch.save(content, path)
    kept = dict(pt_weights_iterator(path))
    assert all(is_mapped(tensor, path) for tensor in kept.values())
    path.unlink()
    assert all(torch.equal(tensor, content[name]) for name, tensor in kept.items())


CHANGES = {
    "a record less deflated": {"deflates": lambda name: name.endswith("data/1")},
    "unaligned": {"alignment": 1},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_is_not_plain_is_read(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(
        packed(records_of(saved({"a": torch.rand(500), "b": torch.rand(77)})), **change)
    )
    for name, tensor in pt_weights_iterator(path, mode="mmap"):
        assert not is_mapped(tensor, path), name
    assert read(path) == items_of(by_torch(path))


def test_big_endian_and_records_of_other_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(packed(edited({"a": torch.arange(9.0)}, byteorder=b"big")))
    for mode in MODES:
        assert read(path, mode=mode) == items_of(by_torch(path))
    for data in (b"x" * 16, b"x" * 160):
        path.write_bytes(packed(edited({"a": torch.arange(9.0), "b": ONES}, data_0=data)))
        for mode in MODES:
            with pytest.raises(ValueError, match="record size"):
                read(path, mode=mode)


def test_a_record_that_is_a_folder_is_not_what_was_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    content = bytearray(packed(records_of(saved({"a": torch.arange(9.0)}))))
    entry = content.rindex(b"archive/data/0") - 46
    content[entry + 38] = 0x10  # the external attributes
    path.write_bytes(content)
    for mode in MODES:
        with pytest.raises(ValueError, match="'archive/data/0' is a folder"):
            read(path, mode=mode)


def test_a_record_that_unpacks_to_less_is_not_what_was_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    content = bytearray(
        packed(edited({"a": torch.arange(9.0)}, data_0=bytes(12)), deflates=lambda _: True)
    )
    for size_at in (content.index(b"archive/data/0") - 8, content.rindex(b"archive/data/0") - 22):
        assert content[size_at] == 12
        content[size_at] = 36
    path.write_bytes(content)
    for mode in MODES:
        with pytest.raises(ValueError, match="'archive/data/0' does not unpack to 36 bytes"):
            read(path, mode=mode)


def test_a_damaged_record_that_no_tensor_is_of(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    records = [*records_of(saved({"a": ONES})), ("archive/data/7", b"x" * 33)]
    content = packed(records)
    header = content.index(b"archive/data/7") - 30
    for damage in (b"QQ", b"PK"):
        path.write_bytes(content[:header] + damage + content[header + 2 :])
        for mode in MODES:
            assert read(path, mode=mode) == items_of(by_torch(path))


# ---- exchanged under the load ----


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize(
    ("make", "number"), [(fifo, errno.EINVAL), (Path.mkdir, errno.EISDIR)], ids=["fifo", "folder"]
)
def test_a_file_that_becomes_something_else(
    tmp_path: Path, mode: Mode, prefetch: bool, make: Any, number: int
) -> None:
    paths = [tmp_path / f"{name}.pt" for name in "ab"]
    for path in paths:
        torch.save({path.name: ONES}, path)
    weights = pt_weights_iterator(paths, mode=mode, prefetch=prefetch)
    assert next(weights)[0] == "a.pt"
    paths[1].unlink()
    make(paths[1])
    with pytest.raises(OSError) as raised:
        next(weights)
    assert raised.value.errno == number
    assert raised.value.filename == str(paths[1])


def test_another_version_is_not_taken_for_the_prefetched_one(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": ONES}, path)
    weights = pt_weights_iterator(path)
    torch.save({"a": torch.zeros(5000)}, tmp_path / "new")
    (tmp_path / "new").replace(path)
    with pytest.raises(OSError, match="replaced") as raised:
        list(weights)
    assert raised.value.errno == errno.ESTALE


def test_a_lease_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": ONES}, path)
    with path.open("r+b") as file:

        def give_back(*_: Any) -> None:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)

        before = signal.signal(signal.SIGIO, give_back)
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            assert [name for name, _ in pt_weights_iterator(path, prefetch=False)] == ["a"]
        except OSError as error:
            pytest.skip(f"no leases here: {error}")
        finally:
            signal.signal(signal.SIGIO, before)


def test_never_mapped_so_that_writes_reach_the_file(tmp_path: Path) -> None:
    options = getattr(torch.serialization, "set_default_mmap_options", None)
    if options is None:
        pytest.skip("this torch maps privately only")
    path = tmp_path / "a.pt"
    torch.save({"a": ONES}, path)
    content = path.read_bytes()
    with options(mmap.MAP_SHARED):
        for _, tensor in pt_weights_iterator(path):
            tensor.zero_()
    assert path.read_bytes() == content


def test_without_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        torch.save({name: ONES}, tmp_path / f"{name}.pt")
    stat = os.stat

    def refused(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, "no /proc", path)
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refused)
    assert [name for name, _ in pt_weights_iterator(tmp_path)] == ["a", "b"]
    assert ["cannot be mapped" in record.getMessage() for record in caplog.records] == [True]


# ---- what is wrong is named ----


class Planted:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


@pytest.mark.parametrize("archive", [True, False])
def test_the_refused_global_is_named(tmp_path: Path, archive: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": Planted()}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(ValueError, match=r"a\.pt' .*'posix\.system'"):
        read(path)


@pytest.mark.parametrize("mode", MODES)
def test_empty_and_cut_off(tmp_path: Path, mode: Mode) -> None:
    path, content = tmp_path / "a.pt", {"a": torch.rand(500)}
    path.touch()
    with pytest.raises(ValueError, match="is empty"):
        read(path, mode=mode)
    torch.save(content, path)
    whole = path.read_bytes()
    for size in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cut off or damaged"):
            read(path, mode=mode)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="no checkpoint of tensors alone: it is cut off"):
            read(path, mode=mode)


KINDS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n": "git-lfs",
    b"<!DOCTYPE html><html></html>": "web page",
    b"GGUF\3\0\0\0" + bytes(64): "GGUF",
    (2).to_bytes(8, "little") + b"{}": "safetensors_weights_iterator",
    b'{"weight_map": {}}': "JSON",
    b"\x1f\x8b" + bytes(64): "gzip",
    bytes(1000): "zeros",
}


@pytest.mark.parametrize("mode", ["mmap", "pread"])
@pytest.mark.parametrize("content", KINDS, ids=KINDS.values())
def test_what_torch_never_wrote_is_called_by_its_name(
    tmp_path: Path, mode: Mode, content: bytes
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=KINDS[content]) as caught:
        read(path, mode=mode)
    assert str(path) in str(caught.value)
    assert "looks like" in str(caught.value)


def test_bytes_that_cannot_be_read_into_memory(tmp_path: Path, make_mount: MakeMount) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        torch.save({"0": torch.rand(MIB)}, source / name)
    end = (source / "b").stat().st_size - 1
    cases = [("a", 2 * MIB, "pread"), ("b", end, "pread"), ("c", 0, "mmap")]
    mount = make_mount(source)
    for name, place, mode in cases:
        mount.bad(name, place, 1)
        with pytest.raises(OSError) as raised:
            read(mount.mountpoint / name, mode=mode)
        assert raised.value.errno == errno.EIO
        assert raised.value.filename == str(mount.mountpoint / name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", [ArithmeticError, RuntimeError, ValueError, TimeoutError])
def test_what_a_signal_handler_raises_in_torch_load_is_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, error: type[Exception]
) -> None:
    torch.save({"a": ONES}, tmp_path / "a.pt")
    own_load = torch.load

    def load(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGUSR1)
        return own_load(*arguments, **options)

    def fail(*_: object) -> None:
        raise error("the program's own")

    monkeypatch.setattr(torch, "load", load)
    before = signal.signal(signal.SIGUSR1, fail)
    try:
        with pytest.raises(error, match=r"^the program's own$"):
            list(pt_weights_iterator(tmp_path / "a.pt", mode=mode))
    finally:
        signal.signal(signal.SIGUSR1, before)
