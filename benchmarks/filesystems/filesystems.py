"""Loads a checkpoint from real filesystems, cold, by plain safetensors and by Shardahead.

README.md says how.

Exit status: 0 every row that could be measured keeps the rules; 1 one does not, or the arguments
are wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("compare", "demo", "slowfs"))]

from checkpoint import write_checkpoint  # noqa: E402
from judged import Load, Row, Setting, broken_rules, table  # noqa: E402
from kinds import Kind, known_kinds  # noqa: E402
from loads import WAYS  # noqa: E402
from packages import PackageRoot, PackagesError  # noqa: E402
from slowfs import unavailable_reason  # noqa: E402

MIB = 2**20
CACHE = HERE.parents[1] / "build" / "filesystems"
RUN_GUEST = HERE.parent / "guest" / "run-guest"
_NAMESPACES = (
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("--propagation", "private"),
)
_UP_AND_DOWN_S = 120.0  # of one load, beside its own limit: imports, a mount, an image


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="NAME", help="which filesystems; default: all")
    parser.add_argument("--list", action="store_true", help="the names, and nothing else")
    parser.add_argument("--size-mib", type=int, default=256, help="of the checkpoint")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rate-mb-per-s", type=float, default=100, help="of wire and slowfs")
    parser.add_argument("--round-trip-ms", type=float, default=4)
    parser.add_argument("--ranks", default="2,1", help="how many processes load, each in turn")
    parser.add_argument("--ways", default=",".join(WAYS), help="some of the ways to load")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--no-clock", action="store_true", help="judge bytes and contents, but no times"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="where packages are unpacked")
    parser.add_argument("--json", type=Path, help="a file for all loads")
    options = parser.parse_args()
    unknown = [name for name in options.kinds if name not in known_kinds()]
    if unknown:
        parser.error(f"no filesystem {unknown[0]!r}; --list names them")
    if any(way not in WAYS for way in options.ways.split(",")):
        parser.error(f"--ways are some of {','.join(WAYS)}")
    return options


def unable() -> str:
    """Why nothing can be measured here, or nothing."""
    if os.geteuid() != 0:
        return "needs root, for namespaces of its own"
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "no unshare and nsenter here"
    tried = subprocess.run([*_NAMESPACES, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no namespaces: {tried.stderr.strip()}"
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "no /dev/fuse"


def kept_out(kind: Kind, refused: dict[str, str]) -> str:
    """Why this one cannot run here, or nothing."""
    for package in kind.packages:
        if package in refused:
            return f"package {package}: {refused[package]}"
    if kind.wire and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun"
    if kind.modules:
        tried = subprocess.run([RUN_GUEST, "--ready"], capture_output=True, text=True, check=False)
        return tried.stderr.strip().splitlines()[-1] if tried.returncode else ""
    if kind.loop and not os.access("/dev/loop-control", os.R_OK | os.W_OK):
        return "no /dev/loop-control"
    if kind.kernel and kind.kernel not in Path("/proc/filesystems").read_text().split():
        return f"this kernel has no {kind.kernel}"
    return "" if kind.wire else unavailable_reason() or ""


class Matrix:
    """Brings up one kind after the other, each in namespaces of its own."""

    def __init__(self, options: argparse.Namespace, root: Path, data: Path, scratch: Path) -> None:
        self.options = options
        self._root = root
        self._data = data
        self._scratch = scratch
        sizes = [path.stat().st_size for path in data.glob("*.safetensors")]
        self.setting = Setting(sum(sizes), options.rate_mb_per_s, options.round_trip_ms)

    def row(self, kind: Kind, versions: dict[str, str]) -> Row:
        """What came of it; what is said of each load as it comes."""
        row = Row(kind.name, versions={name: versions.get(name, "") for name in kind.packages})
        with tempfile.TemporaryDirectory(prefix=f"{kind.name}-", dir=self._scratch) as folder:
            work = Path(folder, "work")
            work.mkdir()
            for document in self._said(self._job(kind, work)):
                row.mount = document.get("mount", row.mount)
                row.counted = document.get("counted", row.counted)
                row.problem = document.get("problem", row.problem)
                if "load" in document:
                    row.loads.append(Load(**document["load"]))
                    say(f"{kind.name}: {row.loads[-1]}")
        return row

    def _job(self, kind: Kind, work: Path) -> dict[str, Any]:
        return {
            "kind": kind.name,
            "in_guest": False,
            "root": str(self._root),
            "data": str(self._data),
            "work": str(work),
            "rate_mb_per_s": self.options.rate_mb_per_s,
            "round_trip_ms": self.options.round_trip_ms,
            "rounds": self.options.rounds,
            "ranks": [int(word) for word in self.options.ranks.split(",")],
            "ways": self.options.ways.split(","),
            "limit_s": self.setting.limit_s,
        }

    def _said(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What row.py says, until it ends or is quiet for longer than a load may take."""
        line = [*_NAMESPACES, sys.executable, str(HERE / "row.py")]
        with subprocess.Popen(
            [*line, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C ends the matrix, and that ends the row in order
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            watch = Watch(process, self.setting.limit_s + _UP_AND_DOWN_S)
            try:
                for text in process.stdout:
                    watch.alive()
                    yield json.loads(text)
            finally:
                watch.end()
                process.stdin.close()  # then its namespaces end, and all that is in them
        if watch.fired:
            yield {"problem": f"quiet for more than {watch.limit_s:g} s: ended"}
        elif process.returncode:
            yield {"problem": f"ended with status {process.returncode}"}


class Watch:
    """Ends a process that is quiet for too long, and with it all of its namespaces."""

    def __init__(self, process: subprocess.Popen[str], limit_s: float) -> None:
        self.limit_s = limit_s
        self.fired = False
        self._process = process
        self._ended = threading.Event()
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def alive(self) -> None:
        self._heard = time.monotonic()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            if time.monotonic() - self._heard > self.limit_s:
                self.fired = True
                assert self._process.stdin is not None
                self._process.stdin.close()
                return


def checkpoint_of(options: argparse.Namespace) -> Path:
    """The same for every run: made once."""
    data: Path = options.cache / f"checkpoint-{options.size_mib}-mib-{options.shards}-shards"
    if not data.exists():
        making = data.with_suffix(".new")
        shutil.rmtree(making, ignore_errors=True)
        write_checkpoint(making, options.size_mib * MIB, options.shards, divisor=8)
        making.rename(data)
    return data


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write_json(path: Path, setting: Setting, rows: Sequence[Row]) -> None:
    document = {"setting": asdict(setting), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1))


def main() -> int:
    options = arguments()
    kinds = known_kinds()
    if options.list:
        print("\n".join(kinds))
        return 0
    if reason := unable():
        say(f"nothing was measured: {reason}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    wanted = [kinds[name] for name in options.kinds or kinds]
    options.cache.mkdir(parents=True, exist_ok=True)
    root = PackageRoot(options.cache / "root")
    packages = [package for kind in wanted for package in kind.packages]
    try:
        refused = root.bring(packages)
    except PackagesError as error:
        refused = dict.fromkeys(packages, str(error))
    versions = root.versions()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="run-", dir=options.cache) as scratch:
        matrix = Matrix(options, root.path, checkpoint_of(options), Path(scratch))
        for kind in wanted:
            reason = kept_out(kind, refused)
            row = Row(kind.name, skipped=reason) if reason else matrix.row(kind, versions)
            rows.append(row)
            if options.json is not None:
                write_json(options.json, matrix.setting, rows)
    return tell(rows, matrix.setting, by_clock=not options.no_clock)


def tell(rows: Sequence[Row], setting: Setting, *, by_clock: bool) -> int:
    """The table, then what is wrong and what was skipped; the exit status."""
    print(table(rows, setting, by_clock=by_clock))
    counted = sorted({row.counted for row in rows if row.counted})
    for who in counted:
        names = ", ".join(row.name for row in rows if row.counted == who)
        say(f"bytes counted by {who}: {names}")
    broken = 0
    for row in rows:
        if row.skipped:
            say(f"{row.name} skipped: {row.skipped}")
        for line in broken_rules(row, setting, by_clock=by_clock):
            broken += 1
            say(f"{row.name}: {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
