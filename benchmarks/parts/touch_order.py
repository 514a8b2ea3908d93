"""Whether the order in which a loader touches the tensors of a file matters beside a prefetch that
brings each file in from its beginning to its end.

Method: 2 files of 64 tensors of 8 MiB on a slowfs of 300 MB/s and 1 ms. One process that opens a
file after the other and sums each of its tensors, in the order of their offsets, backwards, or
shuffled; a process of its own per load, the page cache of the mount dropped before it. Rounds are
interleaved; shown is the median of the seconds, with the least and the most, as times the link's.

    python benchmarks/parts/touch_order.py --rounds 3
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

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks" / "slowfs"))

import slowfs  # noqa: E402

FILES, TENSORS, TENSOR_BYTES, RATE_MB_PER_S = 2, 64, 8 * 2**20, 300
LINK_SECONDS = FILES * TENSORS * TENSOR_BYTES / (RATE_MB_PER_S * 1e6)
ORDERS = ("offset", "backwards", "shuffled")
METHODS = ("plain", "first load", "second load")
MAKE = f"""
import sys, torch
from safetensors.torch import save_file
for number in range({FILES}):
    tensors = {{f"t{{i:03}}": torch.full(({TENSOR_BYTES // 8},), i) for i in range({TENSORS})}}
    save_file(tensors, f"{{sys.argv[1]}}/model-{{number}}.safetensors")
"""
LOAD = f"""
import contextlib, json, pathlib, random, sys, time
import shardahead, torch
from safetensors import safe_open
folder, order, learn = sys.argv[1:]
beside = shardahead.prefetching(folder, learn=learn) if learn else contextlib.nullcontext()
began = time.monotonic()
with beside:
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as shard:
            names = sorted(shard.keys(), reverse=order == "backwards")
            if order == "shuffled":
                random.Random(1).shuffle(names)
            sums = {{name: int(shard.get_tensor(name).sum()) for name in names}}
        assert all(found == int(name[1:]) * {TENSOR_BYTES // 8} for name, found in sums.items())
    print(json.dumps(time.monotonic() - began))
"""


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def load(mount: slowfs.SlowFs, order: str, learn: str) -> float:
    mount.evict_all()
    seconds = json.loads(run(LOAD, str(mount.mountpoint), order, learn))
    mount.wait_until_idle()
    return float(seconds) / LINK_SECONDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    reason = slowfs.unavailable_reason()
    if reason is not None:
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        source, mountpoint = Path(folder, "checkpoint"), Path(folder, "mount")
        source.mkdir()
        mountpoint.mkdir()
        run(MAKE, str(source))
        found: dict[tuple[str, str], list[float]] = {}
        with slowfs.SlowFs(source, mountpoint, rate_mb_per_s=RATE_MB_PER_S) as mount:
            for number in range(rounds):
                for order in ORDERS:
                    learn = Path(folder, f"{order}-{number}")
                    learn.mkdir()
                    for method in METHODS:
                        where = "" if method == "plain" else str(learn)
                        found.setdefault((order, method), []).append(load(mount, order, where))
    for (order, method), times in found.items():
        low, high = min(times), max(times)
        print(f"{order:10} {method:12} {median(times):.2f} ({low:.2f}-{high:.2f})")
    print(f"times the link's {LINK_SECONDS:.2f} s; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
