"""mode "pread": the same tensors, read into memory of their own, on every kind of mount.

What is right is what the safetensors library reads from the source by itself.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    FOREVER_SECONDS,
    KIB,
    MIB,
    MakeMount,
    eventually,
    finish,
    make_cold,
    resident_bytes,
    result_of,
    run_python,
    run_ranks,
    start_python,
    worker_threads,
    write_file,
)
from weights_support import Bits, bits, plainly, random_tensor, save_file, zoo

from shardahead import (
    PrefetchHandle,
    WeightsIterator,
    buffered_multi_thread_safetensors_weights_iterator,
    keeping,
    prefetch_files,
    safetensors_weights_iterator,
)
from shardahead.policy import resolve_mode, resolve_options
from shardahead.reading import ahead_bytes

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")

MakeIterator = Callable[..., WeightsIterator]
ITERATORS = {
    "one by one": safetensors_weights_iterator,
    "buffered": buffered_multi_thread_safetensors_weights_iterator,
}
MOUNTS: dict[str, dict[str, Any]] = {
    "keep_cache": {},
    "no keep_cache": {"keep_cache": False},
    "direct_io": {"direct_io": True},
}
KEEPS_NOTHING = ["no keep_cache", "direct_io"]


@pytest.fixture(params=ITERATORS.values(), ids=list(ITERATORS))
def iterate(request: pytest.FixtureRequest) -> MakeIterator:
    found: MakeIterator = request.param
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards in natural order: every kind of tensor, none, many small ones, large ones."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_file({}, folder / "model-1.safetensors")
    for number in (2, 3, 4):
        save_file(zoo(number), folder / f"model-{number}.safetensors")
    small = {f"small.{i}": random_tensor(torch.uint8, (i,), i) for i in range(1, 500)}
    save_file(small, folder / "model-5.safetensors")
    large = {f"large.{i}": random_tensor(torch.bfloat16, (i, MIB), i) for i in (1, 5, 3)}
    save_file(large, folder / "model-10.safetensors")
    return folder


@pytest.fixture(scope="module")
def expected(source: Path) -> list[Bits]:
    return plainly(*(source / f"model-{i}.safetensors" for i in (1, 2, 3, 4, 5, 10)))


def read(weights: WeightsIterator) -> list[Bits]:
    return [bits(name, tensor) for name, tensor in weights]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# ---- the same tensors ----


@pytest.mark.parametrize("options", [{}, {"threads": 1}, {"window_bytes": 1}, {"prefetch": False}])
def test_the_same_tensors_and_no_mapping(
    source: Path, expected: list[Bits], iterate: MakeIterator, options: dict[str, Any]
) -> None:
    weights = iterate(source, mode="pread", **options)
    assert (weights.mode, weights.prefetch) == ("pread", None)
    mapped = ""
    found = []
    for name, tensor in weights:
        found.append(bits(name, tensor))
        mapped = Path("/proc/self/maps").read_text()
        assert str(source) not in mapped
    assert found == expected
    assert list(weights) == []


def test_each_tensor_has_an_aligned_storage_of_its_own(source: Path) -> None:
    held = list(safetensors_weights_iterator(source, mode="pread"))
    storages = [t.untyped_storage() for _, t in held if t.nbytes]
    assert len({s.data_ptr() for s in storages}) == len(storages)
    assert all(s.data_ptr() % 64 == 0 for s in storages)
    assert [s.nbytes() for s in storages] == [t.nbytes for _, t in held if t.nbytes]
    for _, tensor in held:
        tensor.view(-1)[:1].zero_()  # it may be written to


def test_the_mode_comes_from_argument_environment_or_default(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_mode(None, {}) == "auto"
    assert resolve_mode("mmap", {"SHARDAHEAD_MODE": "pread"}) == "mmap"
    with pytest.raises(ValueError, match="SHARDAHEAD_MODE must be one of auto, mmap, pread"):
        resolve_mode(None, {"SHARDAHEAD_MODE": "magic"})
    monkeypatch.setenv("SHARDAHEAD_MODE", "pread")
    assert safetensors_weights_iterator(source).mode == "pread"
    monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    assert safetensors_weights_iterator(source).mode == "mmap"


def test_where_pages_are_kept_auto_means_mappings(source: Path, expected: list[Bits]) -> None:
    weights = safetensors_weights_iterator(source)
    assert weights.mode == "auto"
    assert read(weights) == expected
    assert weights.mode == "mmap"
    assert weights.prefetch is not None
    assert weights.prefetch.report().keeps_pages
    assert weights.prefetch.report().keeps_pages_reason == ""


def test_only_the_named_tensors(source: Path, expected: list[Bits], iterate: MakeIterator) -> None:
    def wanted(name: str) -> bool:
        return "up_proj" in name or name in ("small.7", "large.3")

    found = read(iterate(source, mode="pread", names=wanted))
    assert found == [entry for entry in expected if wanted(entry[0])]
    assert len(found) == 5
    assert read(iterate(source, mode="pread", names=[])) == []


def test_progress_and_drop_after(source: Path, expected: list[Bits], iterate: MakeIterator) -> None:
    told: list[Any] = []
    options = {"progress": told.append, "drop_after": True, "local_rank": 0, "local_size": 2}
    assert read(iterate(source, mode="pread", **options)) == expected
    assert told[-1].consumed_bytes == told[-1].total_bytes == sum(len(e[3]) for e in expected)
    assert [resident_bytes(path) for path in source.iterdir()] == [0] * 6


def test_a_kind_of_tensor_that_torch_has_under_no_name_of_its_own(tmp_path: Path) -> None:
    for dtype, shape, length in (("F4", [4], 2), ("Q9", [2], 2), ("U8", [3], 2)):
        header = {
            "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
            "b": {"dtype": dtype, "shape": shape, "data_offsets": [1, 1 + length]},
        }
        text = json.dumps(header).encode()
        path = tmp_path / f"{dtype}.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + b"\x01\x02\x03")
        outcomes: list[Any] = []
        for mode in ("mmap", "pread"):
            try:
                weights = safetensors_weights_iterator(path, mode=mode)
                outcomes.append([(n, t.dtype, t.shape) for n, t in weights])
            except Exception as error:
                outcomes.append([type(error)])
        assert outcomes[0] == outcomes[1]


# ---- mounts ----


@pytest.mark.parametrize("mount_options", MOUNTS.values(), ids=list(MOUNTS))
@pytest.mark.parametrize("mode", ["auto", "pread"])
def test_the_same_tensors_from_every_kind_of_mount(
    source: Path,
    expected: list[Bits],
    iterate: MakeIterator,
    make_mount: MakeMount,
    mode: str,
    mount_options: dict[str, Any],
) -> None:
    mount = make_mount(source, **mount_options)
    weights = iterate(mount.mountpoint, mode=mode)
    assert read(weights) == expected
    assert weights.mode == ("mmap" if mode == "auto" and not mount_options else "pread")


@pytest.mark.parametrize("kind", KEEPS_NOTHING)
def test_a_prefetch_ends_where_no_pages_are_kept(
    source: Path, make_mount: MakeMount, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    mount = make_mount(source, **MOUNTS[kind])
    with caplog.at_level(logging.WARNING, "shardahead"):
        handle = prefetch_files(mount.mountpoint)
        handle.wait()
        handle.wait()
    report = handle.report()
    assert handle.keeps_pages() is report.keeps_pages is False
    assert report.left_out_bytes == report.planned_bytes == size_of(source)
    assert not report.complete
    assert report.error_count == 0
    assert report.keeps_pages_reason in str(report.incomplete_reason())
    remedy = "kernel_cache" if kind == "no keep_cache" else "without direct_io"
    assert remedy in report.keeps_pages_reason
    assert str(mount.mountpoint) in report.keeps_pages_reason
    assert [r.getMessage() for r in caplog.records] == [
        f"prefetch ended: {report.keeps_pages_reason}"
    ]
    assert mount.counters().bytes_served <= 64 * KIB


def test_a_mount_that_keeps_pages_is_known_as_such(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source)
    handle = prefetch_files(mount.mountpoint)
    assert handle.keeps_pages() is True
    handle.wait()
    mount.wait_until_idle()
    assert mount.counters().bytes_served == size_of(source)
    assert handle.report().read_bytes == size_of(source)


def test_the_words_for_what_the_core_found() -> None:
    assert keeping.keeps_pages("unknown") is None
    assert keeping.keeps_pages("keeps") is True
    assert keeping.keeps_pages("uncached") is False
    assert keeping.keeping_reason("unknown", "/") == ""
    assert 'mode="pread"' in keeping.keeping_reason("uncached", "/no/such/path")


LOAD = """
import hashlib, json, sys
import shardahead
if sys.argv[3] == "plainly":
    from pathlib import Path
    from safetensors import safe_open
    def load():
        for path in sorted(Path(sys.argv[2]).glob("*.safetensors")):
            with safe_open(path, framework="pt") as shard:
                for name in shard.offset_keys():
                    yield name, shard.get_tensor(name)
    weights = load()
else:
    weights = getattr(shardahead, sys.argv[1])(sys.argv[2], mode=sys.argv[3])
found = hashlib.sha256()
for name, tensor in weights:
    found.update(name.encode())
    found.update(memoryview(tensor.numpy()))
    del tensor
print(json.dumps(found.hexdigest()))
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Four shards of 16 MiB, each of eight tensors."""
    folder = tmp_path / "source"
    folder.mkdir()
    for i in range(4):
        tensors = {
            f"{i}.{j}": random_tensor(torch.uint8, (2 * MIB + j,), 8 * i + j) for j in range(8)
        }
        save_file(tensors, folder / f"model-{i}.safetensors")
    return folder


@pytest.mark.parametrize("name", [make.__name__ for make in ITERATORS.values()])
@pytest.mark.parametrize("kind", KEEPS_NOTHING)
def test_no_more_bytes_than_plain_safetensors(
    checkpoint: Path, make_mount: MakeMount, kind: str, name: str
) -> None:
    sums, served = [], []
    for mode in ("plainly", "auto", "pread"):
        mount = make_mount(checkpoint, **MOUNTS[kind])
        sums.append(run_python(LOAD, name, mount.mountpoint, mode))
        mount.wait_until_idle()
        served.append(mount.counters().bytes_served)
    assert sums == [sums[0]] * 3
    assert served[1] <= 1.03 * served[0]
    assert served[2] <= 1.03 * served[0]


@pytest.mark.parametrize("kind", KEEPS_NOTHING)
def test_ranks_out_of_step_read_about_once_each(
    checkpoint: Path, make_mount: MakeMount, kind: str
) -> None:
    mount = make_mount(checkpoint, **MOUNTS[kind])
    ranks = run_ranks(LOAD, 2, "safetensors_weights_iterator", mount.mountpoint, "auto")
    assert ranks[0] == ranks[1]
    mount.wait_until_idle()
    # What one is copying when the other opens the file, it has to bring in again.
    assert mount.counters().bytes_served <= 1.1 * 2 * size_of(checkpoint)


def test_a_file_that_cannot_be_mapped_is_read(
    source: Path,
    expected: list[Bits],
    iterate: MakeIterator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_handle: PrefetchHandle, _file: int) -> Any:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), "shard")

    monkeypatch.setattr(PrefetchHandle, "map", refuse)
    with caplog.at_level(logging.WARNING, "shardahead"):
        weights = iterate(source)
        assert read(weights) == expected
    assert weights.mode == "pread"
    assert "cannot be mapped" in caplog.text


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


@pytest.mark.parametrize("kind", KEEPS_NOTHING)
def test_ranks_in_step_share_what_such_a_mount_does_not_keep(
    tmp_path: Path, make_mount: MakeMount, kind: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(2):
        shard = {f"{i}.{j}": random_tensor(torch.uint8, (8 * MIB,), 3 * i + j) for j in range(3)}
        save_file(shard, source / f"{i}.safetensors")
    file_bytes = sum(path.stat().st_size for path in source.iterdir())
    mount = make_mount(source, rate_mb_per_s=40, round_trip_ms=1, **MOUNTS[kind])
    script = """
import json, os, sys, time, zlib, shardahead
folder, started = sys.argv[1:]
import torch, safetensors
open(f"{started}-{os.environ['LOCAL_RANK']}", "w").close()
while not all(os.path.exists(f"{started}-{rank}") for rank in range(4)):
    time.sleep(0.01)
weights = shardahead.safetensors_weights_iterator(folder)
sums = {name: zlib.crc32(tensor.numpy().data) for name, tensor in weights}
print(json.dumps([weights.mode, sums]))
"""
    ranks = run_ranks(script, 4, mount.mountpoint, tmp_path / "started")
    right = {
        name: zlib.crc32(tensor.numpy().data)
        for path in source.iterdir()
        for name, tensor in safetensors.torch.load_file(path).items()
    }
    assert all(sums == right for _mode, sums in ranks)
    assert {mode for mode, _sums in ranks} == {"pread"}
    # Each by itself: 4.0. They wait for each other, so that no open() throws away what was read.
    assert mount.counters().bytes_served <= 1.03 * file_bytes


def test_a_rank_that_never_comes_is_waited_for_and_not_for_ever(
    source: Path,
    expected: list[Bits],
    make_mount: MakeMount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # For how long is a matter of the C++ tests, on a clock of their own.
    waited_for = []
    meet = PrefetchHandle.meet

    def meet_and_tell(handle: PrefetchHandle, ranks: int) -> None:
        meet(handle, ranks)
        waited_for.append(ranks)

    monkeypatch.setattr(PrefetchHandle, "meet", meet_and_tell)
    mount = make_mount(source, **MOUNTS["no keep_cache"])
    weights = safetensors_weights_iterator(mount.mountpoint, local_rank=0, local_size=2)
    assert read(weights) == expected
    assert weights.mode == "pread"
    assert waited_for == [2]


# ---- a server that does not answer, memory, fork ----


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


def test_its_threads_end_with_it(source: Path, iterate: MakeIterator) -> None:
    before = worker_threads()
    for close in (True, False):
        for started in (True, False):
            weights = iterate(source, mode="pread")
            if started:
                next(weights)
            if close:
                weights.close()
            del weights
            eventually(lambda: worker_threads() <= before, "the threads stay")


def test_what_is_ahead_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    for i in range(4):
        tensors = {f"{i}.{j}": torch.zeros(4 * MIB, dtype=torch.uint8) + j for j in range(16)}
        save_file(tensors, folder / f"{i}.safetensors")
    script = """
import json, sys, time, torch, shardahead
def anonymous():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))
make = getattr(shardahead, sys.argv[1])
list(make(sys.argv[2], mode="pread", window_bytes=1, names=["0.0"]))  # what is loaded once stays
before, most = anonymous(), 0
for i, (name, tensor) in enumerate(make(sys.argv[2], mode="pread", window_bytes=16 << 20)):
    if i % 8 == 0:
        time.sleep(0.05)
    most = max(most, anonymous() - before)
    del tensor
print(json.dumps(most))
"""
    for make in ITERATORS.values():
        most = run_python(script, make.__name__, folder)
        assert 8 * MIB < most < 32 * MIB


def test_the_bound_of_what_is_ahead() -> None:
    def bound(window_bytes: int | None, budget: str) -> int:
        environ = {"SHARDAHEAD_MEMORY_BUDGET_BYTES": budget}
        return ahead_bytes(resolve_options(window_bytes=window_bytes, environ=environ))

    assert bound(None, "100GiB") == bound(0, "100GiB") == 128 * MIB
    assert bound(1, "100GiB") == 1
    assert bound(None, "200MiB") == 50 * MIB
    assert bound(None, "0") == 8 * MIB


def test_a_forked_child_goes_on_by_itself(source: Path, expected: list[Bits]) -> None:
    script = """
import hashlib, json, os, sys, shardahead
weights = shardahead.safetensors_weights_iterator(sys.argv[1], mode="pread")
first = [next(weights)[0] for _ in range(3)]
reading, writing = os.pipe()
def rest():
    return [(n, hashlib.sha256(t.reshape(-1).view(torch.uint8).numpy()).hexdigest())
            for n, t in weights]
import torch
child = os.fork()
if child == 0:
    os.write(writing, json.dumps([n for n, _ in rest()]).encode())
    os._exit(0)
os.close(writing)
mine = [n for n, _ in rest()]
text = b""
while part := os.read(reading, 65536):
    text += part
print(json.dumps([os.waitpid(child, 0)[1], first + mine, first + json.loads(text)]))
"""
    status, mine, theirs = run_python(script, source)
    assert status == 0
    assert mine == theirs == [entry[0] for entry in expected]


def test_pages_are_left_to_the_page_cache_of_a_mount_that_keeps_them(
    numbered: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(numbered)
    make_cold(*mount.mountpoint.glob("*.safetensors"))
    mount.reset()
    list(safetensors_weights_iterator(mount.mountpoint, mode="pread"))
    mount.wait_until_idle()
    assert mount.counters().bytes_served <= 1.03 * size_of(numbered)
