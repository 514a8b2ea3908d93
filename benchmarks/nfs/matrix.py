"""Loads a checkpoint from a real NFS server, cold, cell by cell; README.md says how.

Exit status: 0 all cells are as they must be, or there is no client here and it says why; 1 not so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo")]

from cells import (  # noqa: E402
    CONDITIONS,
    MOUNTS,
    Conditions,
    Load,
    Mount,
    Setting,
    slow_cells,
    table,
    wrong_bytes,
)
from checkpoint import write_checkpoint  # noqa: E402

RUN_NFS = HERE / "run-nfs"
NO_CLIENT_STATUS = 125
MIB = 2**20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024, help="of the checkpoint")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rate-mb-per-s", type=int, default=200, help="of the link")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--versions", default="3,4.2", help="of the protocol")
    parser.add_argument("--rsize-kib", default="256,1024", help="bytes of a READ")
    parser.add_argument("--plain", action="store_true", help="the plain loop too, once per cell")
    parser.add_argument("--least-share", type=float, help="exit 1 if a cell has less of the link")
    parser.add_argument("--json", type=Path, help="a file for all loads")
    return parser.parse_args()


def client_missing() -> str:
    """Why no NFS client can be started here, or nothing. Installs what it needs."""
    tried = subprocess.run(
        [RUN_NFS, "--memory-mib", "512", "--export", str(HERE), "--", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if tried.returncode == 0 else tried.stderr.strip()[-2000:] or "it did not start"


def loads_of(mount: Mount, folder: Path, options: argparse.Namespace) -> Iterator[Load]:
    """All loads by one client: its conditions, `rounds` times."""
    methods = ["shardahead"] * options.rounds + (["plain"] if options.plain else [])
    job = {
        "folder": "/mnt/nfs",
        "conditions": [[c.round_trip_ms, c.read_ahead_kib] for c in CONDITIONS],
        "methods": methods,
        "ranks": options.ranks,
    }
    command = [
        *(RUN_NFS, "--version", mount.version, "--options", mount.options),
        *("--rate-mb-per-s", str(options.rate_mb_per_s), "--export", folder),
        *("--memory-mib", str(3 * options.size_mib + 2048), "--"),
        *(sys.executable, HERE / "client.py", json.dumps(job)),
    ]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        for line in client.stdout:
            document = json.loads(line)
            document["conditions"] = Conditions(*document["conditions"])
            yield Load(mount=mount, **document)
    if client.returncode:
        raise RuntimeError(f"the client ended with status {client.returncode}")


def wanted(mount: Mount, options: argparse.Namespace) -> bool:
    versions, sizes = options.versions.split(","), options.rsize_kib.split(",")
    return mount.version in versions and str(mount.rsize_kib) in sizes


def main() -> int:
    options = arguments()
    reason = client_missing()
    if reason:
        print(f"skipped, no NFS client can be started here: {reason}")
        return 0
    loads: list[Load] = []
    with tempfile.TemporaryDirectory(prefix="shardahead-nfs-") as scratch:
        folder = Path(scratch) / "checkpoint"
        write_checkpoint(folder, options.size_mib * MIB, options.shards)
        file_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        setting = Setting(file_bytes, options.rate_mb_per_s, options.ranks)
        for mount in MOUNTS:
            if not wanted(mount, options):
                continue
            for load in loads_of(mount, folder, options):
                loads.append(load)
                say(load, setting)
    print(table(loads, setting))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(load) for load in loads], indent=1))
    problems = wrong_bytes(loads, setting)
    if options.least_share is not None:
        problems += slow_cells(loads, setting, options.least_share)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def say(load: Load, setting: Setting) -> None:
    share = f"{setting.share_of_link(load.seconds):.3f} of the link" if load.seconds else ""
    text = f"{load.mount} {load.conditions} {load.method}: {load.seconds:.2f} s, {share}"
    print(text, load.problem, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
