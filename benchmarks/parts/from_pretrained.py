"""What transformers' `from_pretrained` reads, cold, of a checkpoint of which it keeps half of the
layers and leaves the others on disk, as parameters without bytes: bytes and seconds, by itself and
beside a prefetch that learns.

Method: a Llama of 8 layers with random weights in BF16, 1 GiB, on a slowfs of 300 MB/s and 1 ms. A
process of its own per load, the page cache of the mount dropped before it; the clock runs from the
call of `from_pretrained`, after all imports, until it returned, and until every parameter that has
bytes was copied once more, as to a device. Rounds are interleaved; shown is the median, with the
least and the most. "touched" is what the library by itself is served without any readahead, once:
"link" is what the link needs for that. A parameter's sums must be the same whichever way it came.

    pip install transformers accelerate
    python benchmarks/parts/from_pretrained.py --rounds 3
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
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks" / "slowfs"))

import slowfs  # noqa: E402

MIB = 2**20
RATE_MB_PER_S = 300
LAYERS = 8
MAKE = f"""
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.set_default_dtype(torch.bfloat16)
LlamaForCausalLM(LlamaConfig(
    hidden_size=2048, intermediate_size=8192, num_hidden_layers={LAYERS}, num_attention_heads=16,
    vocab_size=4096)).save_pretrained(sys.argv[1], max_shard_size="256MB")
"""
LOAD = f"""
import contextlib, json, sys, tempfile, time, torch
import shardahead
from transformers import LlamaForCausalLM
folder, learn = sys.argv[1:]
offload_folder = tempfile.mkdtemp()
ends = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
places = {{name: "cpu" for name in ends}}
places |= {{f"model.layers.{{i}}": "cpu" if i < {LAYERS} // 2 else "disk" for i in range({LAYERS})}}
beside = shardahead.prefetching(folder, learn=learn) if learn else contextlib.nullcontext()
copies = {{}}
began = time.monotonic()
with beside as handle:
    model = LlamaForCausalLM.from_pretrained(
        folder, device_map=places, offload_folder=offload_folder, dtype="auto")
    returned = time.monotonic() - began
    for name, parameter in model.named_parameters():
        if parameter.device.type == "cpu":
            copies[name] = parameter.detach().clone()
    seconds = time.monotonic() - began
sums = {{name: c.view(torch.int16).sum(dtype=torch.int64).item() for name, c in copies.items()}}
kept = sum(copy.nbytes for copy in copies.values())
report = handle.report() if handle else None
print(json.dumps([returned, seconds, kept, report and report.learned, sums]))
"""


class Load(NamedTuple):
    """One load. `kept_bytes`: of the parameters that have bytes. `returned_seconds`: until
    `from_pretrained` returned.
    """

    returned_seconds: float
    seconds: float
    kept_bytes: int
    learned: str | None
    sums: dict[str, int]
    served_bytes: int


def load_once(source: Path, mountpoint: Path, learn: str, readahead_kib: int = 128) -> Load:
    with slowfs.SlowFs(
        source, mountpoint, rate_mb_per_s=RATE_MB_PER_S, readahead_kib=readahead_kib
    ) as mount:
        mount.evict_all()
        mount.reset()
        command = [sys.executable, "-c", LOAD, str(mountpoint), learn]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
        mount.wait_until_idle()
        served_bytes = mount.counters().bytes_served
    returned_seconds, seconds, kept_bytes, learned, sums = json.loads(done.stdout)
    return Load(returned_seconds, seconds, kept_bytes, learned, sums, served_bytes)


def rounds_of(rounds: int, source: Path, mountpoint: Path, folder: Path) -> dict[str, list[Load]]:
    loads: dict[str, list[Load]] = {"by itself": [], "first load": [], "next load": []}
    for number in range(rounds):
        learn = folder / f"profiles-{number}"
        learn.mkdir()
        for way, runs in loads.items():
            runs.append(load_once(source, mountpoint, "" if way == "by itself" else str(learn)))
    return loads


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="shardahead-from-pretrained-") as name:
        folder = Path(name)
        source, mountpoint = folder / "source", folder / "mount"
        mountpoint.mkdir()
        subprocess.run([sys.executable, "-c", MAKE, str(source)], check=True)
        loads = rounds_of(rounds, source, mountpoint, folder)
        touched = load_once(source, mountpoint, "", readahead_kib=0)
        file_bytes = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    if not touched.kept_bytes:
        sys.exit("no parameter was kept")
    if any(load.sums != touched.sums for runs in loads.values() for load in runs):
        sys.exit("parameters differ")
    link = touched.served_bytes / (RATE_MB_PER_S * 1e6)
    print(
        f"\n{file_bytes / MIB:.0f} MiB, of which {touched.kept_bytes / MIB:.0f} MiB are kept and "
        f"{touched.served_bytes / MIB:.0f} MiB touched; load average {os.getloadavg()[0]:.1f}\n"
    )
    print("| way | learned | served MiB | / touched | s returned | / link | s copied | / link |")
    print("|---|---|---|---|---|---|---|---|")
    for way, runs in loads.items():
        returned = sorted(run.returned_seconds for run in runs)
        seconds = sorted(run.seconds for run in runs)
        served = median(run.served_bytes for run in runs)
        print(
            f"| {way} | {runs[-1].learned or ''} | {served / MIB:.0f} "
            f"| {served / touched.served_bytes:.3f} "
            f"| {median(returned):.2f} ({returned[0]:.2f}-{returned[-1]:.2f}) "
            f"| {median(returned) / link:.2f} "
            f"| {median(seconds):.2f} ({seconds[0]:.2f}-{seconds[-1]:.2f}) "
            f"| {median(seconds) / link:.2f} |"
        )


if __name__ == "__main__":
    main()
