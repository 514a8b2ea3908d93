"""Runs functions in forked processes that stand for the ranks of an engine, and reports as JSON.

Runs under the interpreter of the engine's environment, which need not have pytest. The engine is
imported once, before the forks: that takes longer than most tests. One job at a time, each a line
of JSON on standard input; the answer is a line on standard output.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

Rank = Callable[..., Any]
_POLL_SECONDS = 0.01
_STILL_SECONDS = 1.0


def serve(functions: Mapping[str, Rank]) -> None:
    """Answers jobs until standard input ends."""
    # Engines print; the answers have the real standard output to themselves.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    gc.freeze()  # else each rank would end by looking at all that the engine has imported: 1.5 s
    threads = os.listdir("/proc/self/task")
    _say(channel, {"ready": sorted(functions), "threads": len(threads)})
    for line in sys.stdin:
        job = json.loads(line)
        # No context manager: a rank leaves through here, too.
        folder = Path(tempfile.mkdtemp(prefix="ranks-"))
        found = _run(functions[job["function"]], job, folder)
        shutil.rmtree(folder)
        _say(channel, found)


def _say(channel: TextIO, document: dict[str, Any]) -> None:
    print(json.dumps(document), file=channel, flush=True)


def _run(function: Rank, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All ranks at once; who has not ended after the limit is killed."""
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    ranks = [_fork(function, rank, folder / str(i)) for i, rank in enumerate(job["ranks"])]
    statuses = _wait(ranks, started + job["limit_s"])
    return {"ranks": [_found(folder / str(i), statuses[pid]) for i, pid in enumerate(ranks)]}


def _fork(function: Rank, rank: dict[str, Any], place: Path) -> int:
    child = os.fork()
    if child:
        return child
    log = os.open(f"{place}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        os.environ.update(rank["env"])
        result = function(**rank["arguments"])
        Path(f"{place}.json").write_text(json.dumps(result))
        status = 0
    except BaseException:
        traceback.print_exc()
    # As a process ends: whatever would hold up the exit, does. The parent's part is not run.
    raise SystemExit(status)


def _wait(ranks: list[int], deadline: float) -> dict[int, int]:
    statuses: dict[int, int] = {}
    while len(statuses) < len(ranks):
        late = time.monotonic() > deadline
        for pid in ranks:
            if pid in statuses:
                continue
            if late:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0 if late else os.WNOHANG)
            if ended:
                statuses[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(_POLL_SECONDS)
    return statuses


def _found(place: Path, status: int) -> dict[str, Any]:
    result = Path(f"{place}.json")
    return {
        "status": status,
        "result": json.loads(result.read_text()) if result.exists() else None,
        "log": Path(f"{place}.log").read_text(errors="replace"),
    }


def digest(weights: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """What came: names in their order, a checksum of each tensor, and how long all of it took.

    Tensors are let go one by one, as an engine that has copied them does.
    """
    import torch

    names: list[str] = []
    sums: list[str] = []
    total = 0
    started = time.monotonic()
    for name, tensor in weights:
        raw = tensor.contiguous().reshape(-1).view(torch.uint8)
        described = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        found = hashlib.blake2b(described, digest_size=8)
        found.update(memoryview(raw.numpy()))
        names.append(name)
        sums.append(found.hexdigest())
        total += raw.nbytes
        del tensor, raw
    return {
        "names": names,
        "sums": sums,
        "bytes": total,
        "seconds": time.monotonic() - started,
    }


def terminated(weights: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """What comes of SIGTERM while `weights` waits for its storage, in a process whose handler
    raises SystemExit, as those of the engines' workers do: how many tensors had come, and whether
    the load ended by it. The process then ends as ever.
    """
    came: list[float] = []

    def leave(*_: object) -> None:
        raise SystemExit

    def end_once_it_waits() -> None:
        while not came or time.monotonic() - came[-1] < _STILL_SECONDS:
            time.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    threading.Thread(target=end_once_it_waits, daemon=True).start()
    ended = False
    try:
        for _ in weights:
            came.append(time.monotonic())
    except SystemExit:
        ended = True
    return {"tensors": len(came), "ended": ended}


def failing(weights: Iterable[tuple[str, Any]]) -> list[Any] | None:
    """The kind, number and file of the OSError by which a load ends."""
    try:
        for _ in weights:
            pass
    except OSError as error:
        return [type(error).__name__, error.errno, error.filename]
    return None


def parameters_of(model: Any) -> dict[str, Any]:
    """A checksum of each parameter of a model, by its name, and the bytes of all."""
    import torch

    found, total = {}, 0
    for name, parameter in model.named_parameters():
        raw = parameter.detach().contiguous().reshape(-1).view(torch.uint8)
        found[name] = hashlib.blake2b(memoryview(raw.numpy()), digest_size=8).hexdigest()
        total += raw.nbytes
    return {"parameters": found, "bytes": total}
