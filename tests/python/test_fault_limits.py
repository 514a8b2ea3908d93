"""A node without descriptors, threads, shared memory or /proc to give: the load completes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fault_support import CHECKED, LOADS, names_before, write_checkpoint
from nursery import Child, Nursery

SHARDS = 500
NO_RIGHT = 77

LOAD = (
    CHECKED
    + """
import logging, resource
logging.basicConfig(format="%(levelname)s %(message)s")
make, folder, options, before = sys.argv[1:]
exec(before)
if make == "prefetching":
    with shardahead.prefetching(folder) as handle:
        found = []
        for name in sorted(os.listdir(folder)):
            with safetensors.safe_open(os.path.join(folder, name), framework="pt") as shard:
                found += [key for key in shard.keys() if right(key, shard.get_tensor(key))]
else:
    weights = getattr(shardahead, make)(folder, **json.loads(options))
    found = [name for name, tensor in weights if right(name, tensor)]
    handle = weights.prefetch
report = handle.report().to_dict() if handle else None
print(json.dumps({"found": found, "report": report}))
"""
)
WAYS = [*LOADS, ("prefetching", "{}")]

# A mount namespace of its own: nothing of it is seen outside.
OWN_MOUNTS = f"""
libc = ctypes.CDLL(None, use_errno=True)

def mount(kind, place, flags=0, options=""):
    if libc.mount(b"none", place.encode(), kind.encode(), flags, options.encode()) != 0:
        sys.exit({NO_RIGHT})

if libc.unshare(0x20000) != 0:
    sys.exit({NO_RIGHT})
mount("none", "/", 1 << 14 | 1 << 18)  # MS_REC | MS_PRIVATE
"""
SHARED_MEMORY = {
    "read-only": 'mount("tmpfs", "/dev/shm", 1)',
    "full": """
mount("tmpfs", "/dev/shm", 0, "size=4k")
open("/dev/shm/full", "wb").write(bytes(4096))
""",
    "missing": 'mount("tmpfs", "/dev")',
}


def result_of(child: Child) -> Any:
    if child.status() == NO_RIGHT:
        pytest.skip("no mount namespace of its own for who runs this")
    return child.result()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    write_checkpoint(folder, shards=SHARDS, tensors=1, tensor_bytes=64)
    for i, path in enumerate(sorted(folder.iterdir(), key=lambda p: int(p.stem.split("-")[1]))):
        path.rename(folder / f"model-{i:03}.safetensors")
    return folder


@pytest.mark.parametrize(("make", "options"), WAYS)
def test_more_shards_than_descriptors(
    nursery: Nursery, many: Path, make: str, options: str
) -> None:
    before = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    found = nursery.start(LOAD, make, many, options, before).result()
    assert found["found"] == [f"{i}.0" for i in range(SHARDS)]
    if found["report"]:
        assert found["report"]["errors"] == []


@pytest.mark.parametrize(("make", "options"), WAYS)
def test_no_thread_can_be_started(
    nursery: Nursery, open_folder: Path, make: str, options: str
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody who has reached a limit")
    folder = write_checkpoint(open_folder / "checkpoint")
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o755)
    before = """
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
os.setuid(65534)
"""
    child = nursery.start(LOAD, make, folder, options, before)
    found = child.result()
    assert found["found"] == names_before(3)
    if found["report"]:  # a prefetch that could not be, and says so once
        assert [error["operation"] for error in found["report"]["errors"]] == ["pthread_create"]
        (line,) = child.err.splitlines()
        assert line.startswith("WARNING prefetch incomplete, the load goes on without it")
        assert "pthread_create" in line
    else:
        assert child.err == ""


@pytest.mark.parametrize("kind", SHARED_MEMORY)
def test_no_shared_memory(nursery: Nursery, tmp_path: Path, kind: str) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    before = OWN_MOUNTS + SHARED_MEMORY[kind]
    found = result_of(nursery.start(LOAD, *LOADS[0][:1], folder, "{}", before))
    assert found["found"] == names_before(3)
    assert found["report"]["partition"] == "block"
    assert found["report"]["partition_reason"].startswith("no shared memory: /dev/shm/")
    assert found["report"]["errors"] == []


@pytest.mark.parametrize(("make", "options"), WAYS)
def test_no_proc(nursery: Nursery, tmp_path: Path, make: str, options: str) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    before = OWN_MOUNTS + 'mount("tmpfs", "/proc")'
    found = result_of(nursery.start(LOAD, make, folder, options, before))
    assert found["found"] == names_before(3)
    if found["report"]:
        assert found["report"]["errors"] == []
        assert found["report"]["partition"] == "dynamic"
    assert json.dumps(found["found"])
