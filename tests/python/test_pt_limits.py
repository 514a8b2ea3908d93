"""pt_weights_iterator in little memory, and on files that would grow."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB
from pt_support import edited, packed, records_of, saved

torch = pytest.importorskip("torch")

ONES = torch.ones(3)


# Each job: path, mode, whether to prefetch, bytes of address space beyond what is used. Prints for
# each what came of it, what was logged, and by how many bytes the process has grown by then.
LIMITED = """
import json, logging, resource, sys
import torch
from shardahead import pt_weights_iterator
logged = []
logging.getLogger("shardahead").addHandler(h := logging.Handler())
h.emit = lambda record: logged.append(record.getMessage())
def names(path, mode, prefetch):
    return [name for name, _ in pt_weights_iterator(path, mode=mode, prefetch=prefetch)]
for prefetch in (False, True):
    names(sys.argv[1], "auto", prefetch)
grown = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = grown()
_, most = resource.getrlimit(resource.RLIMIT_AS)
for *job, more in json.load(sys.stdin):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, most))
    del logged[:]
    try:
        said = names(*job)
    except Exception as error:
        said = f"{type(error).__name__} {getattr(error, 'errno', None)} {error}"
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps([said, logged, grown() - before]))
"""


def holed(path: Path, hole_bytes: int) -> None:
    """An archive with a hole before its directory."""
    content = packed(records_of(saved({"a": ONES})))
    directory = content.index(b"PK\1\2")
    end = bytearray(content[directory:])
    place = end.rindex(b"PK\5\6") + 16
    end[place : place + 4] = (directory + hole_bytes).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(content[:directory])
        file.seek(directory + hole_bytes)
        file.write(end)


def bomb(pickled: bytes) -> bytes:
    return packed(edited({"a": ONES}, data_pkl=pickled), deflates=lambda _: True)


# Each: the file, and what is said of it.
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "pickle": (lambda: bomb(b"\x80\x02" + b"]" * (64 * MIB)), "an archive with a pickle of"),
    "lists": (lambda: bomb(b"\x80\x02" + b"]" * (12 * MIB)), "a pickle that may need"),
    "sets": (lambda: bomb(b"\x80\x02" + b"\x8f" * (2 * MIB)), "a pickle that may need"),
    "data": (
        lambda: packed(edited({"a": ONES}, data_0=bytes(320 * MIB)), deflates=lambda _: True),
        "would grow",
    ),
    "old": (lambda: b"\x80\x02" + b"]" * (2 * MIB), "pickles of more than"),
    "old claims": (lambda: b"\x80\x02" + b"X\xff\xff\xff\x7f", "it is cut off"),
}
LARGE = {"mmap": True, "pread": True, "auto": False}  # mode: whether it is an archive


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, list[str], int]]:
    """What comes of each job, all in one process: the hostile files first, for it never shrinks."""
    folder = tmp_path_factory.mktemp("limited")
    torch.save({"a": ONES}, folder / "small.pt")
    jobs = {}
    for name, (make, _) in HOSTILE.items():
        (folder / name).write_bytes(make())
        jobs[name] = (str(folder / name), "auto", False, 64 << 30)
    holed(folder / "holed", 256 * MIB)
    for prefetch in (False, True):
        jobs[f"holed, {prefetch}"] = (str(folder / "holed"), "mmap", prefetch, 160 * MIB)
    for archive in (True, False):
        path = folder / f"large, {archive}"
        torch.save({"a": torch.zeros(24 * MIB)}, path, _use_new_zipfile_serialization=archive)
    for mode, archive in LARGE.items():
        jobs[f"large, {mode}"] = (str(folder / f"large, {archive}"), mode, False, 60 * MIB)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder / "small.pt")],
        input=json.dumps([*jobs.values()]), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    return dict(zip(jobs, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("prefetch", [False, True])
def test_memory_for_reading_but_not_for_a_mapping(limited: Any, prefetch: bool) -> None:
    said, logged, _ = limited[f"holed, {prefetch}"]
    assert said == ["a"]
    why = "holed' cannot be mapped (Cannot allocate memory (12)): it is read into memory"
    assert sum(line.endswith(why) for line in logged) == 1


@pytest.mark.parametrize("mode", LARGE)
def test_too_little_memory_is_called_that(limited: Any, mode: str) -> None:
    said, _, _ = limited[f"large, {mode}"]
    path = re.escape(f"/large, {LARGE[mode]}'")
    assert re.match(rf"OSError {errno.ENOMEM} .*not enough memory for 96.0 MiB .*{path}", said)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_would_grow_is_refused_first(limited: Any, kind: str) -> None:
    said, _, grown = limited[kind]
    assert re.match(rf"CheckpointError None '.*{kind}' .*{HOSTILE[kind][1]}", said), said
    assert grown < 192 * MIB
