"""What `torch.distributed.checkpoint.load` takes, cold: four ranks of a node, with torch's readers
and with those of shardahead.checkpointing.

Method: 64 matrices of 2048 x 2048 in float32, 1 GiB, as DTensors over four processes on gloo: saved
by `dcp.save` with the rows cut, and as a folder of four safetensors files. On a slowfs of 300 MB/s
and 1 ms four ranks load it with the rows cut, each what it saved itself, and with the columns cut,
where each needs a part of every matrix. Processes of their own per load, the page cache of the
mount dropped before it; the clock runs from a barrier before `dcp.load` until the last rank has
returned. Rounds are interleaved; shown is the median, with the least and the most. "link" is what
the link needs for the files once, as the ranks of a node want all of them. All elements are
compared with what was saved.

    python benchmarks/parts/distributed_checkpoint.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks" / "slowfs"))

import slowfs  # noqa: E402

MIB = 2**20
RATE_MB_PER_S = 300
RANKS = 4
MATRICES, EDGE = 64, 2048
CUTS = ("rows", "columns")
COMMON = f"""
import json, sys, time
import torch, torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
meeting, rank, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size={RANKS})
mesh = init_device_mesh("cpu", ({RANKS},))

def whole(number):
    return torch.randn({EDGE}, {EDGE}, generator=torch.Generator().manual_seed(number))

def cut(matrix, dim):
    return distribute_tensor(matrix, mesh, [Shard(dim)], src_data_rank=None)
"""
MAKE = (
    COMMON
    + f"""
from safetensors.torch import save_file
dcp.save({{str(i): cut(whole(i), 0) for i in range({MATRICES})}}, checkpoint_id=folder + "/dcp")
mine = range(rank, {MATRICES}, {RANKS})
if rank == 0:
    import os
    os.mkdir(folder + "/hf")
dist.barrier()
shard = f"{{folder}}/hf/model-{{rank + 1:05}}-of-00004.safetensors"
save_file({{str(i): whole(i) for i in mine}}, shard)
"""
)
LOAD = (
    COMMON
    + f"""
import importlib
module, name, dim = sys.argv[4], sys.argv[5], int(sys.argv[6])
reader = getattr(importlib.import_module(module), name)(folder)
state = {{str(i): cut(torch.zeros({EDGE}, {EDGE}), dim) for i in range({MATRICES})}}
dist.barrier()
began = time.monotonic()
dcp.load(state, storage_reader=reader)
dist.barrier()
seconds = time.monotonic() - began
for i in range({MATRICES}):
    assert torch.equal(state[str(i)].to_local(), cut(whole(i), dim).to_local()), i
print(json.dumps(seconds))
"""
)
OF_TORCH = "torch.distributed.checkpoint"
OURS = "shardahead.checkpointing"
READERS = {
    "dcp": {
        "torch": (OF_TORCH, "FileSystemReader"),
        "shardahead": (OURS, "PrefetchingFileSystemReader"),
    },
    "hf": {
        "torch": (OF_TORCH, "HuggingFaceStorageReader"),
        "shardahead": (OURS, "PrefetchingHuggingFaceStorageReader"),
    },
}


class Load(NamedTuple):
    """One load of all ranks, `seconds` until the last had returned."""

    seconds: float
    served_bytes: int


def run_ranks(folder: Path, script: str, *arguments: str) -> list[str]:
    """What each rank printed. They meet in a file of their own."""
    with tempfile.TemporaryDirectory(dir=folder) as meeting:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", script, f"{meeting}/ranks", str(rank), *arguments],
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(RANKS)
        ]
        printed = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        sys.exit("a rank has failed")
    return printed


def load_once(folder: Path, kind: str, reader: tuple[str, str], cut: str) -> Load:
    mountpoint = folder / "mount"
    with slowfs.SlowFs(folder / kind, mountpoint, rate_mb_per_s=RATE_MB_PER_S) as mount:
        mount.evict_all()
        mount.reset()
        printed = run_ranks(folder, LOAD, str(mountpoint), *reader, str(CUTS.index(cut)))
        mount.wait_until_idle()
        return Load(max(map(json.loads, printed)), mount.counters().bytes_served)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    loads: dict[tuple[str, str, str], list[Load]] = {}
    with tempfile.TemporaryDirectory(prefix="shardahead-dcp-") as name:
        folder = Path(name)
        (folder / "mount").mkdir()
        run_ranks(folder, MAKE, str(folder))
        size = {
            kind: sum(path.stat().st_size for path in (folder / kind).iterdir()) for kind in READERS
        }
        for _, (kind, ways), cut in product(range(rounds), READERS.items(), CUTS):
            for way, reader in ways.items():
                load = load_once(folder, kind, reader, cut)
                loads.setdefault((kind, cut, way), []).append(load)
    print(f"\n{RANKS} ranks, {size['dcp'] / MIB:.0f} MiB; load average {os.getloadavg()[0]:.1f}\n")
    print("| checkpoint | cut by | reader | s | / link | served / files |")
    print("|---|---|---|---|---|---|")
    for (kind, cut, way), runs in loads.items():
        link = size[kind] / (RATE_MB_PER_S * 1e6)
        ratios = sorted(run.seconds / link for run in runs)
        served = median(run.served_bytes / size[kind] for run in runs)
        print(
            f"| {kind} | {cut} | {way} | {median(run.seconds for run in runs):.2f} "
            f"| {median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) | {served:.3f} |"
        )


if __name__ == "__main__":
    main()
