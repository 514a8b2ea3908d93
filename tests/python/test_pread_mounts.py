"""mode "pread" and "auto" on every kind of mount: the same tensors, and no more bytes than needed.

Bytes are counted by slowfs. Reads that fail or stall are in test_pread_errors.py.
"""

from __future__ import annotations

import logging
import zlib
from pathlib import Path
from typing import Any

import pread_support
import pytest
from conftest import KIB, MIB, MakeMount, make_cold
from nursery import Nursery
from pread_support import ITERATORS, KEEPS_NOTHING, MOUNTS
from weights_support import Bits, MakeIterator, random_tensor, read, save_file

from shardahead import prefetch_files, safetensors_weights_iterator
from shardahead.node import page_keeping as keeping
from shardahead.prefetch.consumer import PrefetchConsumer

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")

expected = pread_support.expected
iterate = pread_support.iterate
source = pread_support.source


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# ---- one rank ----


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
    assert PrefetchConsumer(handle).keeps_pages() is report.keeps_pages is False
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
    assert PrefetchConsumer(handle).keeps_pages() is True
    handle.wait()
    mount.wait_until_idle()
    assert mount.counters().bytes_served == size_of(source)
    assert handle.report().read_bytes == size_of(source)


def test_pages_are_left_to_the_page_cache_of_a_mount_that_keeps_them(
    numbered: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(numbered)
    make_cold(*mount.mountpoint.glob("*.safetensors"))
    mount.reset()
    list(safetensors_weights_iterator(mount.mountpoint, mode="pread"))
    mount.wait_until_idle()
    assert mount.counters().bytes_served <= 1.03 * size_of(numbered)


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
    nursery: Nursery, checkpoint: Path, make_mount: MakeMount, kind: str, name: str
) -> None:
    sums, served = [], []
    for mode in ("plainly", "auto", "pread"):
        mount = make_mount(checkpoint, **MOUNTS[kind])
        sums.append(nursery.run(LOAD, name, mount.mountpoint, mode))
        mount.wait_until_idle()
        served.append(mount.counters().bytes_served)
    assert sums == [sums[0]] * 3
    assert served[1] <= 1.03 * served[0]
    assert served[2] <= 1.03 * served[0]


# ---- several ranks ----


@pytest.mark.parametrize("kind", KEEPS_NOTHING)
def test_ranks_out_of_step_read_about_once_each(
    nursery: Nursery, checkpoint: Path, make_mount: MakeMount, kind: str
) -> None:
    mount = make_mount(checkpoint, **MOUNTS[kind])
    ranks = nursery.run_ranks(LOAD, 2, "safetensors_weights_iterator", mount.mountpoint, "auto")
    assert ranks[0] == ranks[1]
    mount.wait_until_idle()
    # What one is copying when the other opens the file, it has to bring in again.
    assert mount.counters().bytes_served <= 1.1 * 2 * size_of(checkpoint)


@pytest.mark.parametrize("kind", KEEPS_NOTHING)
def test_ranks_in_step_share_what_such_a_mount_does_not_keep(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, kind: str
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
open(f"{started}-{os.environ['LOCAL_RANK']}", "w").close()
while not all(os.path.exists(f"{started}-{rank}") for rank in range(4)):
    time.sleep(0.01)
weights = shardahead.safetensors_weights_iterator(folder)
sums = {name: zlib.crc32(tensor.numpy().data) for name, tensor in weights}
print(json.dumps([weights.mode, sums]))
"""
    ranks = nursery.run_ranks(script, 4, mount.mountpoint, tmp_path / "started")
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
    meet = PrefetchConsumer.meet

    def meet_and_tell(consumer: PrefetchConsumer, ranks: int) -> None:
        meet(consumer, ranks)
        waited_for.append(ranks)

    monkeypatch.setattr(PrefetchConsumer, "meet", meet_and_tell)
    mount = make_mount(source, **MOUNTS["no keep_cache"])
    weights = safetensors_weights_iterator(mount.mountpoint, local_rank=0, local_size=2)
    assert read(weights) == expected
    assert weights.mode == "pread"
    assert waited_for == [2]
