"""What the tests share: files, questions to the kernel, processes that stand for ranks.

Residency is asked of cachestat(2) here and not of the product, or the tests would believe it. No
helper judges by a clock; the timeouts end what hangs.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from nursery import Nursery

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks" / "slowfs"))

import slowfs  # noqa: E402
from shardahead import PrefetchHandle, Report, prefetch_files  # noqa: E402
from shardahead.node import launcher  # noqa: E402

KIB = 1024
MIB = 1024 * KIB
SIZES_BYTES = [5 * MIB + 123, 0, 1, 3 * MIB, 4096]
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
HANG_SECONDS = 120.0
FOREVER_SECONDS = 3600.0  # of a server that stalls
NOBODY = 65534
_CACHESTAT = 451  # the same on every architecture

StrPath = str | bytes | os.PathLike[str]
MakeMount = Callable[..., slowfs.SlowFs]

_libc = ctypes.CDLL(None, use_errno=True)

# Nothing is judged by a clock, as elsewhere here.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

# A background job of a shell has SIGINT ignored, and every process of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither options nor a launcher's variables from outside."""
    for name in clean_environment(only_removed=True):
        monkeypatch.delenv(name)


def clean_environment(*, only_removed: bool = False) -> dict[str, str]:
    """The environment without what the product looks at; or just that part of it."""
    prefixes = ("SHARDAHEAD_", "LOCAL_", "SLURM_", "OMPI_", "MPI_", "PMI_", "PALS_", "MV2_")
    keep = "SHARDAHEAD_SLOWFS"
    return {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(prefixes) and name != keep) == only_removed
    }


# ---- files and the page cache ----


def write_file(path: Path, size_bytes: int) -> Path:
    """`size_bytes` random bytes, the same for the same name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(os.fsencode(path.name)).randbytes(size_bytes))
    return path


def resident_bytes(path: StrPath, offset: int = 0, length: int | None = None) -> int:
    """Bytes of the pages of `path`, or of one range of it, that are in the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size_bytes = os.fstat(descriptor).st_size
        length = size_bytes - offset if length is None else length
        if length == 0:
            return 0  # to cachestat it would mean: to the end
        asked = (ctypes.c_uint64 * 2)(offset, length)
        found = (ctypes.c_uint64 * 5)()
        if _libc.syscall(_CACHESTAT, descriptor, asked, found, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"cachestat: {os.strerror(code)}", path)
        return min(int(found[0]) * PAGE_BYTES, length)
    finally:
        os.close(descriptor)


def make_cold(*paths: StrPath) -> None:
    """Drops the files from the page cache and makes sure of it; skips where they cannot be."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            eventually(partial(_is_dropped, descriptor, path), "it stays resident", skip=True)
        finally:
            os.close(descriptor)


def _is_dropped(descriptor: int, path: StrPath) -> bool:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        return resident_bytes(path) == 0
    except OSError as error:
        if error.errno == errno.ENOSYS:
            pytest.skip("no cachestat(2) in this kernel (Linux 6.5 has it)")
        raise


def is_resident(path: StrPath) -> bool:
    return resident_bytes(path) == os.stat(path).st_size


def refaulted_bytes() -> int:
    """What this node has read again so far after its kernel had reclaimed it."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("workingset_refault_file "):
            return int(line.split()[1]) * PAGE_BYTES
    return 0


# ---- threads and processes ----


def eventually(
    holds: Callable[[], object], otherwise: str, *, skip: bool = False, seconds: float = 30
) -> None:
    """Returns once `holds()`; fails, or skips, with `otherwise` where that never comes."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            (pytest.skip if skip else pytest.fail)(otherwise)
        time.sleep(0.005)


def thread_ids() -> set[int]:
    """All threads of this process, as the kernel counts them."""
    return {int(name) for name in os.listdir("/proc/self/task")}


def worker_threads() -> set[int]:
    """The core's worker threads in this process."""
    found = set()
    for thread in thread_ids():
        try:
            name = Path(f"/proc/self/task/{thread}/comm").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        if name.startswith("shardahead-"):
            found.add(thread)
    return found


def start_python(
    script: str, *arguments: StrPath, env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """A Python process of its own that runs `script`, with arguments in sys.argv[1:]."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**clean_environment(), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(
    process: subprocess.Popen[str], seconds: float = HANG_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Its end and its output; a process that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"hangs after {seconds} s: {out}\n{err}")
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_python(script: str, *arguments: StrPath, env: dict[str, str] | None = None) -> Any:
    """What `script` printed, as JSON. It must end with status 0."""
    return result_of(start_python(script, *arguments, env=env))


def result_of(process: subprocess.Popen[str]) -> Any:
    done = finish(process)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_ranks(
    script: str, size: int, *arguments: StrPath, env: dict[str, str] | None = None
) -> list[Any]:
    """What each of `size` processes printed as JSON; all at once, with torchrun's variables."""
    ranks = [start_python(script, *arguments, env=ours) for ours in rank_variables(size, env)]
    return [result_of(rank) for rank in ranks]


def rank_variables(size: int, env: dict[str, str] | None = None) -> list[dict[str, str]]:
    """`env` with torchrun's variables, for each of `size` ranks."""
    return [
        {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size), **(env or {})}
        for rank in range(size)
    ]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the Hugging Face cache is: empty, of no user, and without the library."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    return tmp_path / "hf" / "hub"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="shardahead-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# ---- a storage that is slow, or fails ----


@pytest.fixture
def make_mount(tmp_path: Path) -> Iterator[MakeMount]:
    """Mounts a folder through slowfs, as fast as it goes unless told otherwise."""
    reason = slowfs.unavailable_reason()
    if reason is not None:
        pytest.skip(f"no slowfs here: {reason}")
    with ExitStack() as mounts:

        def make(source: Path, *, mountpoint: Path | None = None, **options: Any) -> slowfs.SlowFs:
            if mountpoint is None:
                mountpoint = tmp_path / f"mount-{len(os.listdir(tmp_path))}"
            mountpoint.mkdir()
            options = {"rate_mb_per_s": 0, "round_trip_ms": 0, **options}
            return mounts.enter_context(slowfs.SlowFs(source, mountpoint, **options))

        yield make


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """An empty folder, for `learn=`."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of one, to be staged."""
    from replica_support import make_model

    return make_model(tmp_path / "source" / "model")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """An empty folder, for replicas."""
    folder = tmp_path / "local"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """For processes that need not import torch again."""
    from nursery import nursery_in

    with nursery_in(tmp_path_factory.mktemp("nursery")) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [write_file(tmp_path / f"{i}.safetensors", n) for i, n in enumerate(SIZES_BYTES)]
    make_cold(*paths)
    return paths


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Three shards of eight tensors of 1 MiB, named by shard and position."""
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    folder = tmp_path / "source"
    folder.mkdir()
    for i in range(3):
        tensors = {f"{i}.{j}": torch.full((MIB,), 8 * i + j, dtype=torch.uint8) for j in range(8)}
        save_file(tensors, folder / f"model-{i}.safetensors")
    return folder


def held(files: Any, **options: Any) -> PrefetchHandle:
    """A prefetch that does not end by itself, with 64 KiB or so brought in."""
    options = {"block_size": 64 * KIB, "window_bytes": 64 * KIB, "consumer": True, **options}
    return prefetch_files(files, **options)


def has_done(handle: PrefetchHandle, count: int) -> bool:
    return handle.progress().done_bytes >= count


def let_go(handle: PrefetchHandle) -> None:
    last = len(handle.shards) - 1
    handle.consumed(last, handle.shards[last].size_bytes)


def check_sum(report: Report) -> None:
    here = report.resident_bytes + report.read_bytes + report.shared_bytes
    assert here + report.failed_bytes + report.left_out_bytes == report.planned_bytes
    assert report.lost_bytes <= report.read_bytes


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No torch.distributed but what a test puts there, and nothing logged before."""
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)
    monkeypatch.setattr(launcher, "_warned", set())


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert all(r.name == "shardahead" and r.levelno == logging.WARNING for r in caplog.records)
    return [record.getMessage() for record in caplog.records]


STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_GTIDS": "4,5,6",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
}


def step(**changes: str | None) -> dict[str, str]:
    changed = {**STEP, **changes}
    return {name: value for name, value in changed.items() if value is not None}
