"""Ranks that want different parts of the same blocks, on a slow filesystem: what crosses the link
is what any of them wants, once.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import KIB, MIB, MakeMount, run_ranks, write_file

from shardahead import prefetch_files
from shardahead.prefetch.options import Strategy

STRATEGIES = ["auto", "populate", "fadvise", "readahead", "pread"]
FILES = 2
FILE_BYTES = 32 * MIB
# What the ranks want: of each stretch the parts [begin, end) in units of 64 KiB.
PREFETCH = """
import json, os, sys
import shardahead
parts, stretch_bytes = json.loads(sys.argv[1])
files = sys.argv[2:]
begin, end = parts[int(os.environ["LOCAL_RANK"])]
spans = {
    file: [(at + begin * 65536, (end - begin) * 65536)
           for at in range(0, os.stat(file).st_size, stretch_bytes)]
    for file in files
}
handle = shardahead.prefetch_files(files, spans=spans)
handle.wait()
report = handle.report()
assert report.complete, report
print(json.dumps(report.to_dict()))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for i in range(FILES):
        write_file(tmp_path / "source" / f"{i}.safetensors", FILE_BYTES)
    return tmp_path / "source"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("length", [96 * KIB, 1 * MIB, 5 * MIB])
def test_of_several_ranges_of_a_block_nothing_beyond_them_comes(
    source: Path, make_mount: MakeMount, strategy: Strategy, length: int
) -> None:
    mount = make_mount(source)
    stretch = 4 * length
    spans = {
        mount.mountpoint / f"{i}.safetensors": [
            (at, min(length, FILE_BYTES - at)) for at in range(4096, FILE_BYTES, stretch)
        ]
        for i in range(FILES)
    }
    wanted = sum(size for ranges in spans.values() for _, size in ranges)
    handle = prefetch_files(mount.mountpoint, strategy=strategy, spans=spans)
    handle.wait()
    report = handle.report()
    assert report.complete
    assert report.planned_bytes == report.read_bytes == wanted
    mount.wait_until_idle()
    assert mount.counters().bytes_served == wanted


@pytest.mark.parametrize(
    ("parts", "union"),
    [
        ([(0, 16)] * 4, 16),  # the first half of each tensor
        ([(0, 4), (4, 8), (8, 12), (12, 16)], 16),  # a slice each
        ([(0, 10), (4, 14), (14, 20), (25, 26)], 21),  # some of it several times
    ],
)
def test_ranks_take_what_any_of_them_wants_over_the_link_once(
    source: Path, make_mount: MakeMount, parts: list[tuple[int, int]], union: int
) -> None:
    mount = make_mount(source, round_trip_ms=1)
    files = sorted(mount.mountpoint.glob("*.safetensors"))
    reports = run_ranks(PREFETCH, 4, json.dumps([parts, 2 * MIB]), *files)
    mount.wait_until_idle()
    tensors = FILES * FILE_BYTES // (2 * MIB)
    for (begin, end), report in zip(parts, reports, strict=True):
        assert report["planned_bytes"] == tensors * (end - begin) * 64 * KIB
    assert mount.counters().bytes_served == tensors * union * 64 * KIB
