"""build_info() and --version: what they say of this build and this kernel is so."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PAGE_BYTES

import shardahead
from shardahead import build_info
from shardahead.command import cli


def has_cachestat(path: Path) -> bool:
    path.write_bytes(b"x")
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        asked, found = (ctypes.c_uint64 * 2)(0, 1), (ctypes.c_uint64 * 5)()
        if libc.syscall(451, descriptor, asked, found, 0) == 0:
            return True
        assert ctypes.get_errno() in (errno.ENOSYS, errno.EPERM)
        return False
    finally:
        os.close(descriptor)


def has_populate_read() -> bool:
    page = mmap.mmap(-1, PAGE_BYTES)
    try:
        page.madvise(22)
    except OSError as error:
        assert error.errno == errno.EINVAL
        return False
    return True


def test_it_says_what_is_so(tmp_path: Path) -> None:
    found = build_info()
    assert found["version"] == shardahead.__version__
    assert found["page_bytes"] == PAGE_BYTES
    assert found["machine"] == os.uname().machine
    assert found["python"].endswith(platform.python_version())
    assert found["compiler"].split()[0] in ("GCC", "Clang")
    kernel = found["kernel"]
    assert kernel["release"] == os.uname().release
    assert kernel["cachestat"] == has_cachestat(tmp_path / "a")
    assert kernel["populate_read"] == has_populate_read()
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    assert not enabled.exists() or f"[{kernel['huge_pages']}]" in enabled.read_text()


def test_it_is_a_value_of_its_own_each_time() -> None:
    first = build_info()
    first["kernel"]["cachestat"] = not first["kernel"]["cachestat"]
    first["version"] = "0"
    assert build_info() != first
    assert build_info() == build_info()


def test_every_field_is_described() -> None:
    for kind, value in (
        (shardahead.BuildInfo, build_info()),
        (shardahead.KernelInfo, build_info()["kernel"]),
    ):
        assert set(value) == set(kind.__annotations__)
        for name in value:
            # From Python 3.13 on its lines are not indented.
            assert re.search(f"^ *{name}:", kind.__doc__ or "", re.MULTILINE)


def test_the_version_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"shardahead {shardahead.__version__}"
    kernel = build_info()["kernel"]
    assert f"  cachestat: {'yes' if kernel['cachestat'] else 'no'}" in rest
    assert f"  MADV_POPULATE_READ: {'yes' if kernel['populate_read'] else 'no'}" in rest
    assert any(build_info()["compiler"] in line for line in rest)
    assert any(kernel["release"] in line for line in rest)


def test_a_kernel_without_it_is_said_to_be_one(tmp_path: Path) -> None:
    """Under a filter of system calls that refuses cachestat, as containers have one."""
    script = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# BPF: load the number; 451 is cachestat on every architecture; errno ENOSYS for it, else allow.
program = b"".join(struct.pack("HBBI", *step) for step in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 451), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)))
buffer = ctypes.create_string_buffer(program, len(program))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
found = Program(4, ctypes.cast(buffer, ctypes.c_void_p))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(found), 0, 0):
    print("no filter")
    sys.exit()
import shardahead
print(shardahead.build_info()["kernel"]["cachestat"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    if done.stdout == "no filter\n":
        pytest.skip("no filter of system calls can be set here")
    assert done.stdout == "False\n"
