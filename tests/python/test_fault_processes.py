"""Children of a process that prefetches: by fork, by multiprocessing, in the middle of a load."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MIB, MakeMount, is_resident, write_file
from fault_support import CHECKED, LOADS, names_before, write_checkpoint
from nursery import Nursery

HELD_LOCKS = """
import fcntl, glob, struct

def held():
    "How many slots of the boards someone holds, as the kernel says."
    count = 0
    for board in glob.glob(os.environ["SHARDAHEAD_BOARD_FOLDER"] + "/shardahead-*"):
        with open(board, "r+b") as file:
            for slot in range(8):
                lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 1 + slot, 1, 0)
                answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, lock)
                count += struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK
    return count
"""
CHILDREN = (
    HELD_LOCKS
    + """
import multiprocessing
path, other, method = sys.argv[1:]
handle = shardahead.prefetch_files(path, block_size=65536, window_bytes=65536, consumer=True)
assert held() == 1
if method == "fork and exit" or method == "fork and _exit":
    child = os.fork()
    if child == 0:
        with shardahead.prefetch_files(other) as mine:
            mine.wait()
        (sys.exit if method == "fork and exit" else os._exit)(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
else:
    process = multiprocessing.get_context(method).Process(
        target=shardahead.command.cli.main, args=(["warm", "--json", other],)
    )
    process.start()
    process.join(60)
    code = process.exitcode
still = [held(), handle.done, handle.cancelled]
handle.consumed(0, 2**20)
handle.wait(60)
print(json.dumps([code, still, handle.report().complete]))
"""
)


@pytest.mark.parametrize("method", ["fork and exit", "fork and _exit", "fork", "spawn"])
def test_a_child_works_and_leaves_the_parents_claims_alone(
    nursery: Nursery, tmp_path: Path, method: str
) -> None:
    path, other = write_file(tmp_path / "a", MIB), write_file(tmp_path / "b", MIB)
    (tmp_path / "board").mkdir()
    child = nursery.start(
        CHILDREN, path, other, method, env={"SHARDAHEAD_BOARD_FOLDER": str(tmp_path / "board")}
    )
    assert child.result() == [0, [1, False, False], True]
    assert is_resident(other)


IN_THE_MIDDLE = (
    CHECKED
    + """
make, folder, options = sys.argv[1:]
weights = getattr(shardahead, make)(folder, **json.loads(options))
found = []
child = -1
for name, tensor in weights:
    assert right(name, tensor), name
    found.append(name)
    if name == "0.2":
        reader, writer = os.pipe()
        child = os.fork()
if child == 0:
    os.write(writer, json.dumps(found).encode())
    sys.exit()
os.close(writer)
theirs = b"".join(iter(lambda: os.read(reader, 65536), b""))
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps([code, found, json.loads(theirs or "null")]))
"""
)


@pytest.mark.parametrize(("make", "options"), LOADS)
def test_a_fork_in_the_middle_of_a_load_goes_on_in_both(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, make: str, options: str
) -> None:
    # So slow that there is something left to do.
    mount = make_mount(write_checkpoint(tmp_path / "source"), rate_mb_per_s=40)
    child = nursery.start(IN_THE_MIDDLE, make, mount.mountpoint, options)
    assert child.result() == [0, names_before(3), names_before(3)]
