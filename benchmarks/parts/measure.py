"""What one rank of eight reads of a checkpoint, cold, with `slices=`: bytes, requests and seconds.

Method: a checkpoint of matrices of random bytes, of every second one an eighth of the rows, of the
others an eighth of the columns, on a slowfs of 300 MB/s and 1 ms, once with short rows and once
with long ones. A process of its own per load, the page cache of the mount dropped before it; each
tensor is copied, as to a device. Rounds are interleaved; shown is the median, with the least and
the most. "link" is what the link needs for the wanted bytes, and for those that were served.

    python benchmarks/parts/measure.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks" / "slowfs"))

import slowfs  # noqa: E402

MIB = 2**20
RATE_MB_PER_S = 300
RANKS, RANK = 8, 3
# (rows, bytes of a row) of each matrix, and how many.
SHAPES = {"rows of 16 KiB": (4096, 16 * 1024, 16), "rows of 4 MiB": (16, 4 * MIB, 16)}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mmap": ({"mode": "mmap"}, {}),
    "pread": ({"mode": "pread"}, {"keep_cache": False}),
    "pread, whole tensors": ({"mode": "pread", "whole": True}, {"keep_cache": False}),
}
LOAD = f"""
import json, sys, time, torch, shardahead
options = json.loads(sys.argv[2])
whole = options.pop("whole", False)
def part(name, shape, dtype):
    dim = int(name[-1])
    return (dim, shape[dim] * {RANK} // {RANKS}, shape[dim] * {RANK + 1} // {RANKS})
began = time.monotonic()
wanted = 0
for name, tensor in shardahead.safetensors_weights_iterator(
        sys.argv[1], slices=None if whole else part, **options):
    if whole:
        dim, start, stop = part(name, tensor.shape, "")
        tensor = tensor.narrow(dim, start, stop - start)
    wanted += tensor.clone(memory_format=torch.contiguous_format).nbytes
print(json.dumps([time.monotonic() - began, wanted]))
"""


def write_checkpoint(folder: Path, rows: int, row_bytes: int, count: int) -> None:
    entries: dict[str, Any] = {}
    for i in range(count):
        begin = i * rows * row_bytes
        offsets = [begin, begin + rows * row_bytes]
        name = f"layers.{i:02}.dim{i % 2}"
        entries[name] = {"dtype": "U8", "shape": [rows, row_bytes], "data_offsets": offsets}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(count):
            file.write(os.urandom(rows * row_bytes))
        file.flush()
        os.fsync(file.fileno())


def load_once(source: Path, mountpoint: Path, way: str) -> tuple[float, int, int, int]:
    """Seconds, wanted bytes, served bytes, requests."""
    options, mount_options = WAYS[way]
    with slowfs.SlowFs(source, mountpoint, rate_mb_per_s=RATE_MB_PER_S, **mount_options) as mount:
        mount.evict_all()
        mount.reset()
        command = [sys.executable, "-c", LOAD, str(mountpoint), json.dumps(options)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        mount.wait_until_idle()
        counters = mount.counters()
    seconds, wanted = json.loads(done.stdout)
    return seconds, wanted, counters.bytes_served, counters.requests


def show(way: str, runs: list[tuple[float, int, int, int]]) -> None:
    seconds = sorted(run[0] for run in runs)
    wanted, served = runs[0][1], median(run[2] for run in runs)
    link = RATE_MB_PER_S * 1e6
    print(
        f"| {way} | {wanted / MIB:.0f} | {served / MIB:.0f} | {median(r[3] for r in runs):.0f} "
        f"| {median(seconds):.2f} ({seconds[0]:.2f}-{seconds[-1]:.2f}) | {wanted / link:.2f} "
        f"| {served / link:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory(prefix="shardahead-parts-") as folder:
            source, mountpoint = Path(folder, "source"), Path(folder, "mount")
            source.mkdir()
            mountpoint.mkdir()
            write_checkpoint(source, *shape)
            runs: dict[str, list[tuple[float, int, int, int]]] = {way: [] for way in WAYS}
            for _ in range(rounds):
                for way in WAYS:
                    runs[way].append(load_once(source, mountpoint, way))
        print(f"\n{name}, load average {os.getloadavg()[0]:.1f}\n")
        print("| way | wanted MiB | served MiB | requests | s | link, wanted | link, served |")
        print("|---|---|---|---|---|---|---|")
        for way in WAYS:
            show(way, runs[way])


if __name__ == "__main__":
    main()
