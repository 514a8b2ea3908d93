"""slowfs keeps what it promises: bytes, counters, cache modes, faults.

Judged by the server's counters and by what calls return; a clock only ends what hangs.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "slowfs"))
import slowfs

REASON = slowfs.unavailable_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no slowfs here: {REASON}")

KIB = 1024
MIB = 1024 * KIB
# No multiple of a page, so that the last request is short.
FILE_BYTES = 8 * MIB + 1234
NAMES = ["a.safetensors", "b.safetensors", "deep/er/c.safetensors"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(FILE_BYTES))
    (folder / "empty").touch()
    (folder / "with space").write_bytes(b"x" * 100)
    (folder / "link").symlink_to("deep/er/c.safetensors")
    return folder


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "mount"
    folder.mkdir()
    return folder


@pytest.fixture
def mount(source: Path, mountpoint: Path) -> Iterator[slowfs.SlowFs]:
    with slowfs.SlowFs(source, mountpoint, rate_mb_per_s=0, round_trip_ms=0) as mounted:
        yield mounted


def read_range(path: Path, offset: int, n_bytes: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, n_bytes, offset)
    finally:
        os.close(fd)


def advise(fd: int, n_bytes: int, step_bytes: int = 128 * KIB) -> None:
    for offset in range(0, n_bytes, step_bytes):
        os.posix_fadvise(fd, offset, step_bytes, os.POSIX_FADV_WILLNEED)


def wait_until_in_flight(mount: slowfs.SlowFs) -> None:
    deadline = time.monotonic() + 30
    while mount.counters().in_flight == 0:
        assert time.monotonic() < deadline, "the read never arrived"
        time.sleep(0.005)


def test_tree_and_bytes_are_those_of_the_source(source: Path, mount: slowfs.SlowFs) -> None:
    assert sorted(os.listdir(mount.mountpoint)) == sorted(os.listdir(source))
    assert os.readlink(mount.mountpoint / "link") == "deep/er/c.safetensors"
    for name in [*NAMES, "link", "empty", "with space"]:
        assert (mount.mountpoint / name).read_bytes() == (source / name).read_bytes()
        seen, true = (mount.mountpoint / name).stat(), (source / name).stat()
        assert (seen.st_size, seen.st_mode, seen.st_mtime_ns, seen.st_uid) == (
            true.st_size,
            true.st_mode,
            true.st_mtime_ns,
            true.st_uid,
        )
    with pytest.raises(FileNotFoundError):
        (mount.mountpoint / "nothing").stat()


def test_nothing_can_be_changed(mount: slowfs.SlowFs) -> None:
    for change in (
        lambda: (mount.mountpoint / "new").touch(),
        lambda: (mount.mountpoint / "new").mkdir(),
        lambda: (mount.mountpoint / NAMES[0]).unlink(),
        lambda: (mount.mountpoint / NAMES[0]).rename(mount.mountpoint / "new"),
        lambda: (mount.mountpoint / NAMES[0]).open("r+b"),
        lambda: os.truncate(mount.mountpoint / NAMES[0], 0),
    ):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno in (errno.EROFS, errno.EACCES)


@pytest.mark.parametrize("readahead_kib", [0, 64, 128])
def test_one_cold_read_is_served_once(source: Path, mountpoint: Path, readahead_kib: int) -> None:
    with slowfs.SlowFs(
        source, mountpoint, rate_mb_per_s=0, round_trip_ms=0, readahead_kib=readahead_kib
    ) as mount:
        for _ in range(2):
            mount.evict_all()
            mount.reset()
            (mountpoint / NAMES[0]).read_bytes()
            assert mount.counters().bytes_served == FILE_BYTES
        counters = mount.counters()
        assert counters.failed_requests == 0
        assert counters.readahead_kib == readahead_kib


def test_requests_reach_their_full_size(source: Path, mountpoint: Path) -> None:
    # Direct reads ask for as much as the caller does, whatever the readahead.
    with slowfs.SlowFs(
        source, mountpoint, rate_mb_per_s=0, round_trip_ms=0, request_kib=512, direct_io=True
    ) as mount:
        assert len(read_range(mountpoint / NAMES[0], 0, 4 * MIB)) == 4 * MIB
        # A buffer that does not begin on a page takes one more.
        assert mount.counters().requests in (8, 9)
        mount.reset()
        read_range(mountpoint / NAMES[0], 0, 4 * MIB)
        assert mount.counters().bytes_served == 4 * MIB


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set a larger readahead")
def test_large_readahead_is_really_set(source: Path, mountpoint: Path) -> None:
    with slowfs.SlowFs(
        source, mountpoint, rate_mb_per_s=0, round_trip_ms=0, readahead_kib=4096
    ) as mount:
        with (mountpoint / NAMES[0]).open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, FILE_BYTES, os.POSIX_FADV_WILLNEED)
            mount.wait_until_idle()
        assert mount.counters().bytes_served == 4 * MIB
        assert mount.counters().requests == 4


def test_cache_is_kept_across_open(mount: slowfs.SlowFs) -> None:
    (mount.mountpoint / NAMES[0]).read_bytes()
    mount.reset()
    (mount.mountpoint / NAMES[0]).read_bytes()
    assert mount.counters().bytes_served == 0


def test_cache_is_not_kept_across_open(source: Path, mountpoint: Path) -> None:
    with slowfs.SlowFs(
        source, mountpoint, rate_mb_per_s=0, round_trip_ms=0, keep_cache=False
    ) as mount:
        for _ in range(2):
            mount.reset()
            (mountpoint / NAMES[0]).read_bytes()
            assert mount.counters().bytes_served == FILE_BYTES


def test_eio_from_its_offset_on(source: Path, mount: slowfs.SlowFs) -> None:
    mount.eio(NAMES[2], 4 * MIB)
    path = mount.mountpoint / NAMES[2]
    expected = (source / NAMES[2]).read_bytes()[: 4 * MIB]
    assert read_range(path, 0, 4 * MIB) == expected
    with pytest.raises(OSError) as caught:
        read_range(path, 4 * MIB, 1)
    assert caught.value.errno == errno.EIO
    assert mount.counters().failed_requests > 0
    assert (mount.mountpoint / NAMES[0]).read_bytes() == (source / NAMES[0]).read_bytes()
    mount.clear()
    assert path.read_bytes() == (source / NAMES[2]).read_bytes()


def test_a_fault_named_by_a_link_hits_the_file(mount: slowfs.SlowFs) -> None:
    mount.eio("link", 0)
    with pytest.raises(OSError) as caught:
        (mount.mountpoint / NAMES[2]).read_bytes()
    assert caught.value.errno == errno.EIO


def test_truncate_under_a_reader(source: Path, mount: slowfs.SlowFs) -> None:
    path = mount.mountpoint / NAMES[0]
    cut_bytes = 4 * MIB + 10
    kept = (source / NAMES[0]).read_bytes()[:cut_bytes]
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.fstat(fd).st_size == FILE_BYTES
        mount.truncate(path, cut_bytes)
        assert os.fstat(fd).st_size == FILE_BYTES  # the kernel has not been told
        assert os.pread(fd, 1, 6 * MIB) == b""
        assert os.pread(fd, 100, cut_bytes - 1) == kept[-1:]
    finally:
        os.close(fd)
    with path.open("rb") as file:
        assert os.fstat(file.fileno()).st_size == cut_bytes
        assert file.read() == kept
    mount.clear()
    assert path.read_bytes() == (source / NAMES[0]).read_bytes()
    assert path.stat().st_size == FILE_BYTES


def test_stall_holds_that_read_alone(mount: slowfs.SlowFs) -> None:
    order: list[str] = []
    stalled, free = mount.mountpoint / NAMES[0], mount.mountpoint / NAMES[1]
    mount.stall(NAMES[0], 4 * MIB, 1.5)
    read_range(stalled, 0, 1)  # in front of the offset: no stall

    def read(path: Path, name: str) -> None:
        read_range(path, 4 * MIB, 1)
        order.append(name)

    held = threading.Thread(target=read, args=(stalled, "stalled"))
    held.start()
    wait_until_in_flight(mount)
    read(free, "free")
    held.join()
    assert order == ["free", "stalled"]


def test_advice_is_in_flight_at_once(source: Path, mountpoint: Path) -> None:
    with slowfs.SlowFs(source, mountpoint, rate_mb_per_s=0, round_trip_ms=200) as mount:
        fd = os.open(mountpoint / NAMES[0], os.O_RDONLY)
        try:
            advise(fd, 4 * MIB)
            mount.wait_until_idle()
            counters = mount.counters()
            assert counters.peak_in_flight > 1
            assert counters.bytes_served == counters.requests * 128 * KIB == 4 * MIB
        finally:
            os.close(fd)


@pytest.mark.parametrize("shared", [True, False])
def test_mounts_that_share_a_link_queue_behind_each_other(
    source: Path, tmp_path: Path, shared: bool
) -> None:
    order: list[str] = []
    link = tmp_path / "link" if shared else None
    points = tmp_path / "first", tmp_path / "second"
    for point in points:
        point.mkdir()

    def mounted(point: Path) -> slowfs.SlowFs:
        # Past the page cache: what a reader asks for is one request.
        return slowfs.SlowFs(
            source, point, rate_mb_per_s=1, round_trip_ms=0, link=link, direct_io=True
        )

    def read() -> None:
        read_range(points[0] / NAMES[0], 0, MIB // 2)
        order.append("first")

    with mounted(points[0]) as first, mounted(points[1]):
        reader = threading.Thread(target=read)
        reader.start()
        wait_until_in_flight(first)
        read_range(points[1] / NAMES[1], 0, MIB // 4)
        order.append("second")
        reader.join()
    assert order == (["first", "second"] if shared else ["second", "first"])


def test_control(mount: slowfs.SlowFs) -> None:
    mount.command("rate 123.5")
    mount.command("round-trip-ms 2.5")
    counters = mount.counters()
    assert (counters.rate_mb_per_s, counters.round_trip_ms) == (123.5, 2.5)
    assert counters.requests == 0  # control traffic is not counted
    for line in ("nonsense", "eio", "eio a -1", "truncate a.safetensors", "rate fast"):
        with pytest.raises(OSError) as caught:
            mount.command(line)
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(FileNotFoundError):
        mount.eio("nothing", 0)
    mount.eio("with space", 0)
    with pytest.raises(OSError, match="Input/output error"):
        (mount.mountpoint / "with space").read_bytes()


def test_pending_reads_do_not_hold_up_the_end(source: Path, mountpoint: Path) -> None:
    failures: list[OSError] = []

    def read() -> None:
        try:
            read_range(mountpoint / NAMES[0], 0, 1)
        except OSError as error:
            failures.append(error)

    with slowfs.SlowFs(source, mountpoint, rate_mb_per_s=0, round_trip_ms=0) as mount:
        mount.stall(NAMES[0], 0, 3600)
        reader = threading.Thread(target=read)
        reader.start()
        wait_until_in_flight(mount)
    reader.join()
    assert len(failures) == 1
    assert not os.path.ismount(mountpoint)
    assert os.listdir(mountpoint) == []


def test_a_killed_server_leaves_no_mount(source: Path, mountpoint: Path) -> None:
    mount = slowfs.SlowFs(source, mountpoint)
    with pytest.raises(RuntimeError), mount:
        assert mount._server is not None
        mount._server.kill()
        raise RuntimeError
    assert os.listdir(mountpoint) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rate-mb-per-s=fast"],
        ["--request-kib=2048"],
        ["--readahead-kib=130"],
        ["--max-background=0"],
        ["--fault", "eio nothing 0"],
        ["--link=/no/such/folder/link"],
        ["--link=link", "--seek-ms=1"],
        ["--no-such-option"],
    ],
)
def test_wrong_options(source: Path, mountpoint: Path, arguments: list[str]) -> None:
    binary = slowfs.find_binary()
    assert binary is not None
    done = subprocess.run(
        [binary, *arguments, source, mountpoint],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    option, _, value = arguments[0].partition("=")
    assert option in done.stderr
    assert value in done.stderr
    assert not os.path.ismount(mountpoint)
