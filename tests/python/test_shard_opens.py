"""How a shard is opened: what has taken its place, what cannot be mapped, and what is the same file
still although its time of modification has moved.

Bytes of two versions of a file are never mixed: that is in test_fault_storage.py as well.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB
from fault_support import CHECKED, ITERATORS, write_checkpoint
from nursery import Nursery

#: The function and its options; "disabled" is the environment's. All of them in one process.
WAYS: list[tuple[str, dict[str, Any]]] = [
    (ITERATORS[0], {}),
    (ITERATORS[0], {"mode": "mmap"}),
    (ITERATORS[0], {"mode": "pread"}),
    (ITERATORS[1], {"max_workers": 1}),
    (ITERATORS[0], {"prefetch": False}),
    (ITERATORS[0], {"prefetch": False, "names": "all"}),
    (ITERATORS[1], {"prefetch": False}),
    (ITERATORS[0], {"disabled": True}),
]

LOAD = (
    CHECKED
    + """
import io, logging, resource, shutil, socket
ways, source, pause_at, change = json.loads(sys.argv[1]), *sys.argv[2:]
said = io.StringIO()
logging.basicConfig(format="%(levelname)s %(message)s", stream=said)
folder = source + ".copy"

def path_of(i):
    return os.path.join(folder, f"model-{i}.safetensors")

def limit_address_space(more):
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))

def load(make, options):
    os.environ["SHARDAHEAD_DISABLE"] = "1" if options.pop("disabled", False) else "0"
    if options.get("names") == "all":
        options["names"] = lambda name: True
    weights = getattr(shardahead, make)(folder, **options)
    found, error = [], None
    if not pause_at:
        exec(change)
    try:
        for name, tensor in weights:
            assert "." not in name or right(name, tensor), name
            found.append(name)
            if name == pause_at:
                exec(change)
    except (OSError, ValueError) as caught:
        error = [type(caught).__name__, getattr(caught, "errno", None), str(caught)]
        del caught
    return {"found": found, "error": error, "mode": weights.mode}

results = []
for make, options in ways:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, copy_function=os.link if "LINK" in os.environ else shutil.copy2)
    said.truncate(0)
    results.append({**load(make, options), "said": said.getvalue().replace(chr(0), "")})
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps(results))
"""
)


def load(
    nursery: Nursery,
    folder: Path,
    change: str,
    pause_at: str = "",
    *,
    ways: list[tuple[str, dict[str, Any]]] = WAYS,
    before: str = "",
    env: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """What each way gave, of a folder of its own."""
    child = nursery.start(before + LOAD, json.dumps(ways), folder, pause_at, change, env=env or {})
    found: list[dict[str, Any]] = child.result()
    assert len(found) == len(ways)
    return found


def names_of(shards: int, tensors: int = 1) -> list[str]:
    return [f"{i}.{j}" for i in range(shards) for j in range(tensors)]


# ---- what has taken its place ----

PLACES = {
    "a FIFO": "os.unlink(path_of(7)); os.mkfifo(path_of(7))",
    "a link to a FIFO": "os.mkfifo(folder + '/f'); os.unlink(path_of(7)); "
    "os.symlink(folder + '/f', path_of(7))",
    "a folder": "os.unlink(path_of(7)); os.mkdir(path_of(7))",
    "a device": "os.unlink(path_of(7)); os.symlink('/dev/zero', path_of(7))",
    "a socket": "os.unlink(path_of(7)); os.chdir(folder); "
    "socket.socket(socket.AF_UNIX).bind('model-7.safetensors')",
    "nothing": "os.unlink(path_of(7))",
}


@pytest.mark.parametrize("place", PLACES)
def test_what_takes_the_place_of_a_shard_is_an_error_and_no_wait(
    nursery: Nursery, tmp_path: Path, place: str
) -> None:
    """Or it is not seen, where the shard is open already. It hung for ever in open()."""
    folder = write_checkpoint(tmp_path / "c", shards=9, tensors=1, tensor_bytes=64)
    whole = names_of(9)
    for found in load(nursery, folder, PLACES[place]):
        assert found["found"] == whole[: len(found["found"])]
        if found["error"] is None:
            assert found["found"] == whole
            continue
        kind, _, text = found["error"]
        assert kind in ("OSError", "IsADirectoryError", "FileNotFoundError"), text
        assert "model-7.safetensors" in text
        assert len(found["found"]) <= 7


# ---- what cannot be mapped ----


def write_large(path: Path, size_bytes: int) -> Path:
    """Sparse: a small tensor before a large one, of zeros, and one behind it."""
    middle = size_bytes - 16
    header = {
        "first": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
        "large": {"dtype": "U8", "shape": [middle], "data_offsets": [8, 8 + middle]},
        "last": {"dtype": "U8", "shape": [8], "data_offsets": [8 + middle, 16 + middle]},
    }
    text = json.dumps(header).encode()
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text + b"12345678")
            file.seek(middle, os.SEEK_CUR)
            file.write(b"abcdefgh")
    except OSError as error:
        if error.errno not in (errno.EFBIG, errno.ENOSPC):
            raise
        pytest.skip(f"no sparse file of this size here: {error}")
    return path


def total_memory() -> int:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(lines[name].split()[0]) << 10 for name in ("MemTotal", "SwapTotal"))


LARGE_WAYS = [(make, {**options, "names": ["first", "last"]}) for make, options in WAYS]
LINKED = {"LINK": "1"}  # instead of copies


def test_a_shard_larger_than_memory_and_swap(nursery: Nursery, tmp_path: Path) -> None:
    """A mapping that sets memory aside for all of it is refused."""
    folder = tmp_path / "c"
    folder.mkdir()
    write_large(folder / "a.safetensors", 2 * total_memory())
    for (_, options), found in zip(
        WAYS, load(nursery, folder, "", ways=LARGE_WAYS, env=LINKED), strict=True
    ):
        assert (found["found"], found["error"]) == (["first", "last"], None)
        assert found["mode"] == options.get("mode", "mmap")
        assert found["said"] == ""


@pytest.mark.parametrize("pause_at", ["", "0.0"], ids=["at the start", "in the middle"])
def test_a_shard_larger_than_the_address_space_is_read(
    nursery: Nursery, tmp_path: Path, pause_at: str
) -> None:
    folder = write_checkpoint(tmp_path / "c", shards=3, tensors=2)
    write_large(folder / "model-1-large.safetensors", 8 << 30)
    whole = names_of(3, 2)
    wanted = [*whole[:4], "first", "last", *whole[4:]]
    ways = [(make, {**options, "names": wanted}) for make, options in WAYS]
    limit = f"limit_address_space({512 * MIB})"
    for way, found in zip(
        WAYS, load(nursery, folder, limit, pause_at, ways=ways, env=LINKED), strict=True
    ):
        assert (sorted(found["found"]), found["error"]) == (sorted(wanted), None)
        said = [line for line in found["said"].splitlines() if "cannot be mapped" in line]
        asked = way[1].get("mode")
        mapped_before = pause_at and way[0] == ITERATORS[1] and found["mode"] != "pread"
        assert len(said) == (0 if asked == "pread" or mapped_before else 1), way
        assert found["mode"] == "pread" or mapped_before
        for line in said:
            assert "model-1-large.safetensors" in line
            assert os.strerror(errno.ENOMEM) in line


# ---- the same file still ----

FAR = 13_000_000_000  # seconds: in 2381; as nanoseconds no number of 64 bits
SAME: dict[str, str] = {
    "touched": "for i in range(9): os.utime(path_of(i))",
    "far away": f"for i in range(9): os.utime(path_of(i), ({FAR}, {FAR}))",
}
FEW_OPEN = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"


@pytest.mark.parametrize("change", SAME)
@pytest.mark.parametrize("pause_at", ["", "0.0"], ids=["at the start", "in the middle"])
def test_a_time_that_moves_ends_no_load(
    nursery: Nursery, tmp_path: Path, change: str, pause_at: str
) -> None:
    """So few descriptors that most files are closed, and opened again at their turn."""
    folder = write_checkpoint(tmp_path / "c", shards=9, tensors=1, tensor_bytes=64)
    for found in load(nursery, folder, SAME[change], pause_at, before=FEW_OPEN):
        assert (found["found"], found["error"]) == (names_of(9), None)


def test_files_of_a_time_that_no_number_holds(nursery: Nursery, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", shards=3, tensors=1, tensor_bytes=64)
    for i, seconds in enumerate((FAR, -FAR, 2**34 - 3)):
        path = folder / f"model-{i}.safetensors"
        os.utime(path, (seconds, seconds))
        if i == 0 and path.stat().st_mtime != seconds:
            pytest.skip("this filesystem has no such time")
    for found in load(nursery, folder, ""):
        assert (found["found"], found["error"]) == (names_of(3), None)


REPLACED = """
path = path_of(8)
data = bytearray(open(path, "rb").read())
data[-64:] = bytes(64)  # the same header and size, other values
with open(path + ".new", "wb") as file:
    file.write(data)
os.rename(path + ".new", path)
"""


@pytest.mark.parametrize("before", ["", FEW_OPEN], ids=["open", "closed"])
def test_another_file_of_the_same_header_and_size_is_not_taken_for_it(
    nursery: Nursery, tmp_path: Path, before: str
) -> None:
    folder = write_checkpoint(tmp_path / "c", shards=9, tensors=1, tensor_bytes=64)
    for found in load(nursery, folder, REPLACED, "0.0", ways=WAYS[:4], before=before):
        assert found["found"] == names_of(9)[: len(found["found"])]
        if found["error"] is None:
            assert len(found["found"]) == 9  # its old bytes
        else:
            assert found["error"][:2] == ["OSError", errno.ESTALE]
            assert "model-8.safetensors" in found["error"][2]


def test_a_header_that_was_read_before_is_that_of_the_bytes(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Written over in place, in the same size, between the look for names and the tensors."""
    folder = write_checkpoint(tmp_path / "c", shards=2, tensors=2, tensor_bytes=64)
    change = """
with open(path_of(1), "r+b") as file:
    text = file.read().decode("latin-1")
    file.seek(0)
    text = text.replace('"1.0"', '"9.9"').replace('"1.1"', '"1.0"')
    file.write(text.encode("latin-1"))
"""
    names: dict[str, Any] = {"names": ["0.0", "1.0"]}
    ways = [(ITERATORS[0], names), (ITERATORS[0], {**names, "prefetch": False})]
    change = change.replace("file.read().decode", 'open(path_of(1), "rb").read().decode')
    for found in load(nursery, folder, change, "0.0", ways=ways):
        assert found["found"] == ["0.0"]
        assert found["error"][:2] == ["OSError", errno.ESTALE]
