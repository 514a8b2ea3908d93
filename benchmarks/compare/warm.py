"""Brings the files of a folder into the page cache, cold, by several programs in turn.

No consumer: what a disk gives. `fio` reads the files one after the other in requests of 1 MiB.
Times whole processes, in interleaved rounds, and judges nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo"), str(HERE.parent / "slowfs")]

import shardahead  # noqa: E402
from storage import FolderStorage, NotColdError, resident_bytes  # noqa: E402

Command = list[str]
_LEAST_RESIDENT_SHARE = 0.99
_HOW_MUCH = "the files are not resident afterwards"


def vmtouch(files: list[str]) -> Command:
    return ["vmtouch", "-q", "-t", *files]


def cat(files: list[str]) -> Command:
    return ["sh", "-c", 'cat "$@" >/dev/null', "sh", *files]


def fio(files: list[str]) -> Command:
    names = ":".join(path.replace(":", "\\:") for path in files)
    options = "--rw=read --bs=1M --ioengine=psync --direct=0 --invalidate=0 --readonly --minimal"
    return [
        "fio",
        "--name=read",
        f"--filename={names}",
        "--file_service_type=sequential",
        *options.split(),
    ]


def warm(files: list[str]) -> Command:
    return [sys.executable, "-m", "shardahead", "warm", "--json", *files]


PROGRAMS: dict[str, Callable[[list[str]], Command]] = {
    "shardahead warm": warm,
    "fio": fio,
    "vmtouch -t": vmtouch,
    "cat": cat,
}


def seconds_of(command: Command) -> float:
    started = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def measured(folder: Path, files: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each program that is installed, one per round. Raises NotColdError."""
    storage = FolderStorage(folder)
    total = sum(Path(path).stat().st_size for path in files)
    present = {
        name: command
        for name, command in PROGRAMS.items()
        if shutil.which(command(files)[0]) is not None
    }
    found: dict[str, list[float]] = {name: [] for name in present}
    for _ in range(rounds):
        for name, command in present.items():
            storage.make_cold()
            found[name].append(seconds_of(command(files)))
            if (resident_bytes(folder) or 0) < _LEAST_RESIDENT_SHARE * total:
                raise NotColdError(f"{name}: {_HOW_MUCH}")
    return found


def table(found: dict[str, list[float]], total_bytes: int) -> str:
    rates = {name: [total_bytes / s / 1e6 for s in seconds] for name, seconds in found.items()}
    best = max(median(values) for values in rates.values())
    rows = ["| program | MB/s | of the best |", "|---|---|---|"]
    for name, values in rates.items():
        spread = f"{median(values):.0f} ({min(values):.0f}-{max(values):.0f})"
        rows.append(f"| `{name}` | {spread} | {median(values) / best:.2f} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a checkpoint")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved")
    parser.add_argument("--json", type=Path, help="a file for all seconds")
    options = parser.parse_args()
    files = [file.path for file in shardahead.residency(options.folder)]
    total_bytes = sum(Path(path).stat().st_size for path in files)
    try:
        found = measured(options.folder, files, options.rounds)
    except NotColdError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    print(table(found, total_bytes))
    if options.json is not None:
        options.json.write_text(json.dumps({"bytes": total_bytes, "seconds": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
