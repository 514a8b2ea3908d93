"""The demo: one checkpoint, loaded cold by four ranks, first plainly and then through Shardahead.

From a filesystem that behaves like a remote filer where FUSE can be had, else from the local disk,
which shows less. Everything printed was measured in this run; nothing is judged here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "slowfs")]


import shardahead  # noqa: E402
from checkpoint import write_checkpoint  # noqa: E402
from figures import Run, draw, median_run, report_line, show  # noqa: E402
from load_rank import METHODS  # noqa: E402
from slowfs import SlowFs, unavailable_reason  # noqa: E402

CURVE_INTERVAL_SECONDS = 0.05


class ServedCurve:
    """Bytes served over time, sampled from the mount's counters until the `with` ends."""

    def __init__(self, mount: SlowFs | None) -> None:
        self._mount = mount
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.points: list[tuple[float, int]] = []

    def __enter__(self) -> ServedCurve:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while self._mount is not None and not self._ended.wait(CURVE_INTERVAL_SECONDS):
            self.points.append((time.time(), self._mount.counters().bytes_served))


def make_cold(folder: Path, mount: SlowFs | None) -> None:
    """Empties the page cache of the checkpoint, and says so if that did not work."""
    if mount is not None:
        mount.evict_all()
    evicted = shardahead.evict(folder)
    left = sum((file.resident_bytes or 0) + (file.pending_bytes or 0) for file in evicted)
    if left:
        print(f"not cold: {left} bytes stayed in the page cache")
    if mount is not None:
        mount.reset()


def load(method: str, folder: Path, source: Path, ranks: int, mount: SlowFs | None) -> Run:
    if mount is not None:  # the link is to be the limit, not the disk behind it
        shardahead.prefetch_files(source, 0, 1).wait()
    make_cold(folder, mount)
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "torch.distributed.run"]
        command += ["--nproc-per-node", str(ranks), str(HERE / "load_rank.py")]
        command += [method, str(folder), str(source), output]
        with ServedCurve(mount) as curve:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{method}: the ranks failed\n{done.stdout}{done.stderr}")
        results = [json.loads(path.read_text()) for path in sorted(Path(output).iterdir())]
    counters = mount.counters() if mount is not None else None
    started = min(result["started"] for result in results)
    ended = max(result["ended"] for result in results)
    return Run(
        method=method,
        started=started,
        seconds=ended - started,
        checkpoint_bytes=sum(path.stat().st_size for path in source.glob("*.safetensors")),
        served_bytes=counters.bytes_served if counters else None,
        requests=counters.requests if counters else None,
        major_faults=sum(result["major_faults"] for result in results),
        wrong_tensors=sum(len(result["wrong"]) + result["missing"] for result in results),
        tensors=sum(result["tensors"] for result in results),
        ranks=results,
        served_curve=[(at, count) for at, count in curve.points if at <= ended],
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="interleaved; shows medians")
    parser.add_argument("--rate-mb-per-s", type=float, default=300)
    parser.add_argument("--round-trip-ms", type=float, default=2)
    parser.add_argument("--folder", type=Path, help="for the checkpoint (default: a temporary one)")
    parser.add_argument("--picture", type=Path, default=Path("build/demo.png"))
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="shardahead-demo-", dir=options.folder))
    try:
        return run_demo(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_demo(options: argparse.Namespace, folder: Path) -> int:
    source, mountpoint = folder / "checkpoint", folder / "mount"
    mountpoint.mkdir()
    print(f"writing a checkpoint of {options.size_mib} MiB in {options.shards} shards ...")
    write_checkpoint(source, options.size_mib * 2**20, options.shards)
    mount: AbstractContextManager[SlowFs | None] = nullcontext()
    rate, checkpoint = None, source
    reason = unavailable_reason()
    if reason:
        print(f"no slow filesystem ({reason}): loading from the local disk, which shows less")
    else:
        rate, checkpoint = options.rate_mb_per_s, mountpoint
        mount = SlowFs(source, mountpoint, rate_mb_per_s=rate, round_trip_ms=options.round_trip_ms)
        print(f"slow filesystem: {rate:g} MB/s, {options.round_trip_ms:g} ms per request")
    rounds: dict[str, list[Run]] = {method: [] for method in METHODS}
    with mount as mounted:
        for _ in range(options.rounds):
            for method, runs in rounds.items():
                print(f"loading with {options.ranks} ranks: {method} ...", flush=True)
                runs.append(load(method, checkpoint, source, options.ranks, mounted))
    show(rounds, rate)
    print(f"shardahead, rank 0: {report_line(median_run(rounds['shardahead']))}")
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(rounds, rate, options.picture)
    print(f"picture: {options.picture}")
    if options.json:
        options.json.write_text(json.dumps([vars(run) for runs in rounds.values() for run in runs]))
    wrong = sum(run.wrong_tensors for runs in rounds.values() for run in runs)
    if wrong:
        print(f"{wrong} tensors differ from what was written")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
