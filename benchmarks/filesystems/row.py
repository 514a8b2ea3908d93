"""One filesystem of the matrix, in namespaces of its own: filesystems.py starts it there.

Says what it finds in lines of JSON on standard output. The first process of the namespaces only
waits, also for its standard input to end: as it touches no mount, it can always end, and all others
and all mounts with it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("compare", "demo", "slowfs"))]

import shardahead  # noqa: E402
from checkpoint import INDEX_NAME  # noqa: E402
from kinds import Kind, known_kinds  # noqa: E402
from loads import Loads  # noqa: E402
from stage import Backend, NotUpError, Stage, at_guest  # noqa: E402

_LISTED_LIMIT_S = 10.0
_TOLD = ("type", "source", "mount_class", "options", "read_ahead_bytes", "request_bytes")


def say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def wait_in_child() -> None:
    """Returns in a child. Ends with it, or when who started this is gone or wants no more."""
    child = os.fork()
    if not child:
        return

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


@contextmanager
def mounted(kind: Kind, stage: Stage) -> Iterator[None]:
    """Once the checkpoint can be seen there."""
    with kind.client(stage):
        deadline = time.monotonic() + _LISTED_LIMIT_S
        while not (stage.mountpoint / INDEX_NAME).exists():
            if time.monotonic() > deadline:
                raise NotUpError(f"mounted, but without the checkpoint: {stage.said('mount')}")
            time.sleep(0.05)
        yield


def measure(kind: Kind, stage: Stage, backend: Backend, job: dict[str, Any]) -> None:
    scratch = stage.work.parent / "ranks"
    scratch.mkdir()
    with mounted(kind, stage):
        found = shardahead.mount_of(stage.mountpoint)
        told = {name: getattr(found, name) for name in _TOLD}
        say({"mount": told, "counted": backend.counted})
    loads = Loads(
        stage.data,
        stage.mountpoint,
        scratch,
        backend,
        lambda: mounted(kind, stage),
        job["limit_s"],
    )
    for _ in range(job["rounds"]):
        for ranks in job["ranks"]:
            for way in job["ways"]:
                for load in loads.cold(way, ranks):
                    say({"load": asdict(load)})


def bring_up(kind: Kind, stage: Stage, job: dict[str, Any]) -> None:
    """All of it here, or the server here and the rest under another kernel."""
    stage.lay_out()
    with kind.behind(stage) as backend:
        if kind.modules:
            line = [sys.executable, __file__, json.dumps({**job, "in_guest": True})]
            stage.run_in_guest(kind.modules, line)
        else:
            measure(kind, stage, backend, job)


def main() -> None:
    job = json.loads(sys.argv[1])
    kind = known_kinds()[job["kind"]]
    figures = (job["rate_mb_per_s"], job["round_trip_ms"])
    stage = Stage(Path(job["root"]), Path(job["data"]), Path(job["work"]), *figures)
    if not job["in_guest"]:
        wait_in_child()
    try:
        if job["in_guest"]:
            measure(kind, stage, at_guest(), job)
        else:
            bring_up(kind, stage, job)
    except (NotUpError, OSError, RuntimeError) as error:
        say({"problem": str(error)})


if __name__ == "__main__":
    main()
