"""How long it takes to plan a load of which a rank wants a part of each tensor: 2 TB in 400 shards,
200,000 tensors.

Method: sparse shards, whose headers alone have bytes, on the filesystem of --scratch; a process of
its own per run, the page cache warm, nothing prefetched. "headers": reading and checking them all.
"wanted": from parsed headers until it is known which bytes are wanted. "blocks": from there until
prefetch_files() has returned, which has planned blocks of them and joined the board. Memory is what
the process has grown by at its peak during both, beyond what the headers take, the board included.

    python benchmarks/parts/planning.py --rounds 5
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

SHARDS, TENSORS_PER_SHARD, ROWS, COLUMNS = 400, 500, 1024, 4864  # BF16: 9.5 MiB each
PLAN = """
import json, sys, time
from shardahead import prefetch_files
from shardahead.checkpoint.asked_parts import AskedParts
from shardahead.checkpoint.safetensors_header import spans_of
from shardahead.checkpoint.shards import SAFETENSORS_SUFFIXES, resolve_shards
from shardahead.weights.shard_reading import read_headers

def resident_bytes(which):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(which))

def part(name, shape, dtype):
    dim = int(name[-1])
    return (dim, shape[dim] * 3 // 8, shape[dim] * 4 // 8)

def shards_of(shards):
    return [shard.path for shard in shards]

shards = resolve_shards(sys.argv[1])
began = time.monotonic()
headers = list(read_headers(shards))
read = time.monotonic()
with open("/proc/self/clear_refs", "w") as refs:
    refs.write("5")  # the peak begins anew
before = resident_bytes("VmRSS")
began_planning = time.monotonic()
parts = AskedParts(part)
spans = [[(0, h.data_offset), *spans_of(tuple(parts.narrowed(h.tensors)))] for h in headers]
wanted = time.monotonic()
handle = prefetch_files(shards_of(shards), spans=dict(zip(shards_of(shards), spans)))
planned = time.monotonic()
handle.stop(timeout=0)
grown = resident_bytes("VmHWM") - before
times = [read - began, wanted - began_planning, planned - wanted]
print(json.dumps([*times, grown, sum(map(len, spans))]))
"""


def write_shards(folder: Path) -> None:
    tensor_bytes = ROWS * COLUMNS * 2
    for shard in range(SHARDS):
        entries = {
            f"model.layers.{shard}.experts.{i}.weight.dim{i % 2}": {
                "dtype": "BF16",
                "shape": [ROWS, COLUMNS],
                "data_offsets": [i * tensor_bytes, (i + 1) * tensor_bytes],
            }
            for i in range(TENSORS_PER_SHARD)
        }
        header = json.dumps(entries).encode()
        header += b" " * (-len(header) % 8)
        with (folder / f"model-{shard:05}.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + TENSORS_PER_SHARD * tensor_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shardahead-planning-", dir=given.scratch) as name:
        write_shards(Path(name))
        runs = []
        for _ in range(given.rounds):
            command = [sys.executable, "-c", PLAN, name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout))
    print(f"{SHARDS} shards, {SHARDS * TENSORS_PER_SHARD} tensors, {runs[0][4]} ranges")
    shown = ("headers", "s"), ("wanted", "s"), ("blocks", "s"), ("memory", "MiB")
    for number, (what, unit) in enumerate(shown):
        values = sorted(run[number] / (2**20 if unit == "MiB" else 1) for run in runs)
        print(f"{what} {median(values):.2f} ({values[0]:.2f}-{values[-1]:.2f}) {unit}")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
