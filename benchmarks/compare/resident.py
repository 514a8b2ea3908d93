"""The case in which everything is resident already: how long a prefetch takes to find that out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import shardahead
from cases import MIB, Case
from options import shardahead_variables
from records import CaseResult, Load, MethodResult
from storage import resident_bytes

_ATTEMPTS = 3


def measure(case: Case, command: str, methods: list[str], rounds: int, scratch: Path) -> CaseResult:
    """Makes the files, brings them in, and times prefetch_files(FILES).wait() of each variant."""
    files = _make_files(case, scratch)
    total = case.shards * case.size_mib * MIB
    result = CaseResult(case, command, case.text(), total, total, None, "not counted")
    result.methods = [
        MethodResult(method, versions={"shardahead": shardahead.__version__}) for method in methods
    ]
    for number in range(rounds):
        for method in result.methods:
            print(f"{case.name}, round {number + 1}: {method.method}", file=sys.stderr)
            method.loads.append(_time_once(method.method, files, total))
    for file in files:
        file.unlink()
    return result


def _make_files(case: Case, scratch: Path) -> list[Path]:
    """Sparse ones: they take no disk, and their pages are as resident as any."""
    folder = scratch / "resident"
    folder.mkdir(exist_ok=True)
    files = [folder / f"model-{i + 1:05d}.safetensors" for i in range(case.shards)]
    for file in files:
        with open(file, "wb") as made:
            made.truncate(case.size_mib * MIB)
    return files


def _time_once(method: str, files: list[Path], total: int) -> Load:
    """From the call to done. What is not resident before the call is said, not timed."""
    for _ in range(_ATTEMPTS):
        shardahead.prefetch_files(files, 0, 1).wait()
        missing = total - (resident_bytes(files[0].parent) or 0)
        if not missing:
            break
    else:
        return Load(None, f"{missing} bytes do not stay resident")
    with _variables(method):
        started = time.perf_counter()
        handle = shardahead.prefetch_files(files)
        handle.wait()
        seconds = time.perf_counter() - started
    report = handle.report()
    read = report.planned_bytes - report.resident_bytes
    return Load(
        seconds,
        note=f"{read} bytes were not resident" if read else "",
        ranks=[{"rank": 0, "seconds": seconds, "report": report.to_dict()}],
    )


@contextmanager
def _variables(method: str) -> Iterator[None]:
    variables = shardahead_variables(method)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
