"""`slices=` where storage fails: the error names the tensor, what is not wanted is no error, and
every wait can end. The same for whole tensors is in test_pread_errors.py.
"""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    FOREVER_SECONDS,
    KIB,
    MIB,
    NOBODY,
    MakeMount,
    eventually,
    finish,
    result_of,
    run_python,
    start_python,
)
from pread_support import MOUNTS
from weights_support import random_tensor, save_file

from shardahead import tensor_ranges

torch = pytest.importorskip("torch")

ROWS, ROW_BYTES = 64, 512 * KIB
BEGIN, END = 128 * KIB, 192 * KIB  # of each row

LOAD = f"""
import json, sys, torch, shardahead
part = lambda name, shape, dtype: (1, {BEGIN}, {END})
weights = shardahead.safetensors_weights_iterator(sys.argv[1], mode=sys.argv[2], slices=part,
                                                  window_bytes=1 << 20)
found, error = [], None
try:
    for name, tensor in weights:
        found.append([name, int(tensor.sum(dtype=torch.int64))])
        if name == "0":
            print("waiting", flush=True); sys.stdin.readline()
except OSError as caught:
    error = [caught.errno, caught.filename, str(caught), caught.offset]
print(json.dumps({{"found": found, "error": error}}))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    tensors = {str(i): random_tensor(torch.uint8, (ROWS, ROW_BYTES), i) for i in range(3)}
    save_file(tensors, folder / "m.safetensors")
    return folder


def sums() -> list[list[Any]]:
    parts = [random_tensor(torch.uint8, (ROWS, ROW_BYTES), i)[:, BEGIN:END] for i in range(3)]
    return [[str(i), int(part.sum(dtype=torch.int64))] for i, part in enumerate(parts)]


WAYS = [
    *((mount, "pread") for mount in MOUNTS.values()),
    ({}, "mmap"),
]
IDS = [*(f"pread, {name}" for name in MOUNTS), "mmap"]


@pytest.mark.parametrize("where", ["in a run", "between runs", "truncated"])
@pytest.mark.parametrize(("mount_options", "mode"), WAYS, ids=IDS)
def test_what_cannot_be_read_is_an_error_where_it_is_wanted(
    source: Path, make_mount: MakeMount, mount_options: dict[str, Any], mode: str, where: str
) -> None:
    if (where, mode) == ("truncated", "mmap"):
        pytest.skip("a file that is cut short under a mapping raises SIGBUS")
    mount = make_mount(source, **mount_options)
    bad = mount.mountpoint / "m.safetensors"
    tensor = tensor_ranges(bad)[2]
    row = tensor.offset + 20 * ROW_BYTES
    offset = row + (BEGIN + 16 * KIB if where != "between runs" else 400 * KIB)
    process = start_python(LOAD, bad, mode, stdin=-1)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "waiting\n"
    if where == "truncated":
        mount.truncate(bad, offset)
    else:
        mount.bad(bad, offset, 4 * KIB)
    process.stdin.write("go\n")
    process.stdin.flush()
    found = result_of(process)
    if where == "between runs":
        assert found == {"found": sums(), "error": None}
        return
    assert found["found"] == sums()[:2]
    code, filename, text, at = found["error"]
    assert (code, filename) == (errno.ENODATA if where == "truncated" else errno.EIO, str(bad))
    assert "tensor '2'" in text
    assert row + BEGIN <= at <= offset


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_ctrl_c_ends_a_wait_for_a_stalled_run(
    source: Path, make_mount: MakeMount, mode: str
) -> None:
    mount = make_mount(source, keep_cache=mode == "mmap")
    tensor = tensor_ranges(mount.mountpoint)[2]
    mount.stall("m.safetensors", tensor.offset + 20 * ROW_BYTES + BEGIN, FOREVER_SECONDS)
    script = f"""
import sys, shardahead
part = lambda name, shape, dtype: (1, {BEGIN}, {END})
for name, tensor in shardahead.safetensors_weights_iterator(
        sys.argv[1], mode=sys.argv[2], slices=part):
    if name == "1":
        print(name, flush=True)
"""
    process = start_python(script, mount.mountpoint, mode)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    eventually(lambda: mount.counters().in_flight, "nothing stalls")
    process.send_signal(signal.SIGINT)
    done = finish(process, seconds=8)
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr


def test_a_stalled_run_does_not_hold_up_the_exit(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source, keep_cache=False)
    tensor = tensor_ranges(mount.mountpoint)[0]
    mount.stall("m.safetensors", tensor.offset + BEGIN, FOREVER_SECONDS)
    script = f"""
import sys, threading, torch, shardahead
part = lambda name, shape, dtype: (1, {BEGIN}, {END})
weights = shardahead.safetensors_weights_iterator(sys.argv[1], mode="pread", slices=part)
threading.Thread(target=lambda: next(weights), daemon=True).start()
sys.stdin.readline()
"""
    process = start_python(script, mount.mountpoint, stdin=-1)
    eventually(lambda: mount.counters().in_flight, "nothing stalls")
    done = finish(process)
    assert (done.returncode, done.stderr) == (0, "")


def test_parts_of_files_of_others(open_folder: Path) -> None:
    """Their residency is told to no one: each page that is wanted is looked at."""
    path = open_folder / "m.safetensors"
    whole = random_tensor(torch.uint8, (16, MIB), 1)
    save_file({"w": whole}, path)
    path.chmod(0o644)
    script = f"""
import json, os, sys, torch, safetensors, shardahead
os.setgid({NOBODY}) if os.getuid() == 0 else None
os.setuid({NOBODY}) if os.getuid() == 0 else None
weights = shardahead.safetensors_weights_iterator(
    sys.argv[1], mode="mmap", slices={{"w": (1, 0, 4096)}})
((name, tensor),) = weights
print(json.dumps(int(tensor.sum(dtype=torch.int64))))
"""
    assert run_python(script, path) == int(whole[:, :4096].sum(dtype=torch.int64))


def test_an_unreadable_page_in_a_short_gap_is_no_error(
    tmp_path: Path, make_mount: MakeMount
) -> None:
    """It lies in what is prefetched with the runs around it."""
    source = tmp_path / "source"
    source.mkdir()
    whole = random_tensor(torch.uint8, (256, 32 * KIB), 1)
    save_file({"w": whole}, source / "m.safetensors")
    mount = make_mount(source)
    bad = mount.mountpoint / "m.safetensors"
    (tensor,) = tensor_ranges(bad)
    mount.bad(bad, tensor.offset + 100 * 32 * KIB + 20 * KIB, 1)
    script = """
import json, sys, torch, shardahead
weights = shardahead.safetensors_weights_iterator(sys.argv[1], mode=sys.argv[2],
                                                  slices={"w": (1, 0, 4096)})
((_, tensor),) = weights
print(json.dumps(int(tensor.sum(dtype=torch.int64))))
"""
    right = int(whole[:, :4096].sum(dtype=torch.int64))
    assert run_python(script, mount.mountpoint, "mmap") == right
    assert run_python(script, mount.mountpoint, "pread") == right
