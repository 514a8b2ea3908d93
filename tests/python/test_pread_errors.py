"""mode "pread" where a read fails or stalls: the error names its tensor, and every wait can end.

That all else is read right is tested in test_pread_mode.py.
"""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from typing import Any

import pread_support
import pytest
from conftest import (
    FOREVER_SECONDS,
    KIB,
    MIB,
    MakeMount,
    eventually,
    finish,
    result_of,
    start_python,
    worker_threads,
    write_file,
)
from pread_support import ITERATORS, MOUNTS
from weights_support import MakeIterator, bits, plainly, save_file, zoo

iterate = pread_support.iterate

# ---- errors ----

TENSOR_BYTES = MIB
BAD_TENSOR = 5
LOAD_WITH_ERROR = """
import json, sys, torch, shardahead
weights = getattr(shardahead, sys.argv[1])(sys.argv[2], mode="pread", window_bytes=1)
found, error = [], None
try:
    for name, tensor in weights:
        assert bool((tensor == len(found)).all()), name
        found.append(name)
        if name == "1.0":
            print("waiting", flush=True); sys.stdin.readline()
except OSError as caught:
    error = [caught.errno, caught.filename, str(caught), caught.offset]
print(json.dumps({"found": found, "error": error}))
"""


@pytest.mark.parametrize("fault", ["eio", "truncate"])
@pytest.mark.parametrize("mount_options", MOUNTS.values(), ids=list(MOUNTS))
@pytest.mark.parametrize("name", [make.__name__ for make in ITERATORS.values()])
def test_what_cannot_be_read_is_an_error_of_its_tensor(
    numbered: Path, make_mount: MakeMount, name: str, mount_options: dict[str, Any], fault: str
) -> None:
    mount = make_mount(numbered, **mount_options)
    bad = mount.mountpoint / "model-1.safetensors"
    offset = bad.stat().st_size - 8 * TENSOR_BYTES + BAD_TENSOR * TENSOR_BYTES + 100 * KIB
    process = start_python(LOAD_WITH_ERROR, name, mount.mountpoint, stdin=-1)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "waiting\n"
    (mount.eio if fault == "eio" else mount.truncate)(bad, offset)
    process.stdin.write("go\n")
    process.stdin.flush()
    found = result_of(process)
    assert found["found"] == [f"{i}.{j}" for i in range(3) for j in range(8)][: 8 + BAD_TENSOR]
    code, filename, text, at = found["error"]
    assert (code, filename) == (errno.EIO if fault == "eio" else errno.ENODATA, str(bad))
    assert f"tensor '1.{BAD_TENSOR}'" in text
    assert offset - 100 * KIB <= at <= offset


def test_a_bad_shard_is_an_error_when_its_turn_comes(tmp_path: Path, iterate: MakeIterator) -> None:
    good = tmp_path / "1.safetensors"
    save_file(zoo(1), good)
    write_file(tmp_path / "2.safetensors", 100 * KIB)
    weights = iterate(tmp_path, mode="pread")
    assert [bits(*next(weights)) for _ in zoo(1)] == plainly(good)
    with pytest.raises(ValueError, match=r"2\.safetensors'.*not a safetensors file"):
        next(weights)
    longer = tmp_path / "2.safetensors"
    longer.write_bytes(good.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"2\.safetensors'.*its tensors end at byte"):
        list(iterate(tmp_path, mode="pread"))


# ---- a server that does not answer ----


def test_ctrl_c_and_closing_end_a_wait_for_a_stalled_read(
    numbered: Path, make_mount: MakeMount, iterate: MakeIterator
) -> None:
    mount = make_mount(numbered, keep_cache=False)
    mount.stall("model-1.safetensors", 16 * KIB, FOREVER_SECONDS)
    script = """
import sys, shardahead
for name, tensor in getattr(shardahead, sys.argv[1])(sys.argv[2]):
    if name == "0.7":
        print(name, flush=True)
"""
    process = start_python(script, iterate.__name__, mount.mountpoint)
    assert process.stdout is not None
    assert process.stdout.readline() == "0.7\n"
    eventually(lambda: mount.counters().in_flight, "nothing stalls")
    process.send_signal(signal.SIGINT)
    done = finish(process, seconds=8)
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr

    before = worker_threads()
    weights = iterate(mount.mountpoint, mode="pread")
    names = [next(weights)[0] for _ in range(8)]
    assert names[-1] == "0.7"
    weights.close()
    assert list(weights) == []
    del weights
    mount.close()
    eventually(lambda: worker_threads() <= before, "the threads stay")


def test_a_stalled_read_does_not_hold_up_the_exit(numbered: Path, make_mount: MakeMount) -> None:
    mount = make_mount(numbered, keep_cache=False)
    mount.stall("model-0.safetensors", 0, FOREVER_SECONDS)
    script = """
import sys, shardahead
weights = shardahead.safetensors_weights_iterator(sys.argv[1], mode="pread")
sys.stdin.readline()
"""
    process = start_python(script, mount.mountpoint, stdin=-1)
    eventually(lambda: mount.counters().in_flight, "nothing stalls")
    done = finish(process)
    assert (done.returncode, done.stderr) == (0, "")
