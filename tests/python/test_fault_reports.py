"""Quiet failure, loud report: one warning for each prefetch that failed, all in the report."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from conftest import MIB, MakeMount, write_file
from fault_support import ITERATORS, write_checkpoint
from nursery import Nursery

FILES = 100

LOGGED = """
import logging
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.DEBUG)
logging.getLogger().setLevel(logging.INFO)
"""
WAYS = {
    "waited for": """
handle = shardahead.prefetch_files(sys.argv[1], block_size=2**20)
handle.wait()
handle.stop()
handle.wait()
""",
    "stopped": """
handle = shardahead.prefetch_files(sys.argv[1], block_size=2**20)
while not handle.done:
    time.sleep(0.01)
handle.stop(timeout=0)
""",
    "with": """
with shardahead.prefetch_files(sys.argv[1], block_size=2**20) as handle:
    handle.wait()
""",
    "prefetching": """
with shardahead.prefetching(sys.argv[1]) as handle:
    while not handle.done and handle.report().error_count < 100:
        time.sleep(0.01)
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_prefetch_that_fails_logs_one_line_and_reports_all(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, way: str
) -> None:
    for i in range(FILES):
        write_file(tmp_path / "source" / f"{i}.bin", 1000)
    mount = make_mount(tmp_path / "source")
    for i in range(FILES):
        mount.eio(f"{i}.bin", 0)
    script = LOGGED + WAYS[way] + "print(json.dumps(handle.report().to_dict()))"
    child = nursery.start(script, mount.mountpoint)
    report = child.result()
    (line,) = child.err.splitlines()
    assert line.startswith("WARNING prefetch incomplete, the load goes on without it: pread ")
    assert "Input/output error" in line
    assert f"({FILES} errors in all)" in line
    assert report["error_count"] == FILES
    assert report["failed_bytes"] == FILES * 1000
    assert len(report["errors"]) == 64
    paths = {error["path"] for error in report["errors"]}
    assert len(paths) == 64
    assert paths <= {str(mount.mountpoint / f"{i}.bin") for i in range(FILES)}
    assert {error["errno"] for error in report["errors"]} == {errno.EIO}
    assert {error["operation"] for error in report["errors"]} == {"pread"}


def test_a_load_that_fails_logs_one_line_and_raises_once(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(write_checkpoint(tmp_path / "source"))
    for i in range(3):
        mount.eio(f"model-{i}.safetensors", 2 * MIB)
    for make in ITERATORS:
        script = f"""{LOGGED}
try:
    for _ in shardahead.{make}(sys.argv[1]):
        pass
except OSError as error:
    print(json.dumps([error.errno, error.filename]))
"""
        child = nursery.start(script, mount.mountpoint)
        assert child.result() == [errno.EIO, str(mount.mountpoint / "model-0.safetensors")]
        (line,) = child.err.splitlines()
        assert line.startswith("WARNING prefetch incomplete, and the load has failed (OSError): ")
        assert "model-" in line


@pytest.mark.parametrize("within", ["prefetching", "prefetch_files"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_load_beside_it_that_fails_is_not_said_to_go_on(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, within: str, fails: bool
) -> None:
    mount = make_mount(write_checkpoint(tmp_path / "source"))
    mount.eio("model-1.safetensors", 2 * MIB)
    script = f"""{LOGGED}
try:
    with shardahead.{within}(sys.argv[1]) as handle:
        while not handle.report().error_count:
            time.sleep(0.01)
        if {fails}:
            raise OSError(5, "as the loader says it")
except OSError:
    pass
print("null")
"""
    child = nursery.start(script, mount.mountpoint)
    child.result()
    (line,) = child.err.splitlines()
    said = "and the load has failed (OSError)" if fails else "the load goes on without it"
    assert line.startswith(f"WARNING prefetch incomplete, {said}: ")
