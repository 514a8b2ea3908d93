"""Fixed shares rest on sizes that are true: a launcher's is held against the job's store.

Real ranks are those of test_topology.py: a rank is put on another node by letting it read another
file for the boot id.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB
from test_topology import HANG_SECONDS, Store, pretend_torch

from shardahead.node import launcher, topology
from shardahead.node.fixed_share import proven_share
from shardahead.node.launcher import LocalTopology

pytestmark = pytest.mark.usefixtures("alone")

XPU = LocalTopology(1, 3, "LOCAL_RANK and LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("abc\n")
    monkeypatch.setattr(topology, "BOOT_ID_PATH", str(tmp_path / "boot_id"))
    monkeypatch.setattr(launcher, "_warned", set())


def two_of_three_are_here() -> Store:
    return Store(r0="3 boot other", r2="3 boot abc")


@pytest.mark.parametrize("source", [XPU.source, "SLURM_LOCALID and SLURM_GTIDS"])
def test_a_size_that_is_too_large_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    pretend_torch(monkeypatch, two_of_three_are_here())
    with caplog.at_level(logging.WARNING, "shardahead"):
        for _ in range(2):
            found = proven_share(LocalTopology(1, 3, source), {})
            assert (found.rank, found.size) == (0, 2)
            assert found.source == f"torch.distributed (store), instead of {source}"
    (said,) = caplog.messages
    assert said == (
        f"{source} say 3 processes of this node, of which the job has 2: what is shared out is "
        "shared by 2"
    )


@pytest.mark.parametrize(
    ("where", "environ"),
    [
        # Words of the user's own, and of the ranks themselves.
        (LocalTopology(1, 3, "argument"), {}),
        (LocalTopology(1, 3, "SHARDAHEAD_LOCAL_RANK and SHARDAHEAD_LOCAL_SIZE"), {}),
        (LocalTopology(1, 3, "torch.distributed (group)"), {}),
        # Nothing to be shared.
        (LocalTopology(0, 1, XPU.source), {}),
        # As many as are said, or fewer: the others may have a page cache of their own.
        (LocalTopology(1, 2, XPU.source), {}),
        # Of a larger job the process group is a part: others of it may be here.
        (XPU, {"RANK": "1", "WORLD_SIZE": "6"}),
        (LocalTopology(1, 4, XPU.source), {}),
    ],
)
def test_what_is_not_proven_wrong_is_believed(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: LocalTopology,
    environ: dict[str, str],
) -> None:
    pretend_torch(monkeypatch, two_of_three_are_here())
    with caplog.at_level(logging.WARNING, "shardahead"):
        assert proven_share(where, environ) is where
    assert not caplog.messages


def test_a_size_beyond_that_of_the_job_is_proven_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch(monkeypatch, two_of_three_are_here())
    found = proven_share(LocalTopology(5, 8, XPU.source), {"RANK": "1", "WORLD_SIZE": "3"})
    assert (found.rank, found.size) == (0, 2)


def test_without_an_answer_the_launcher_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proven_share(XPU, {}) is XPU
    monkeypatch.setattr(topology, "STORE_WAIT_SECONDS", 0.02)
    pretend_torch(monkeypatch, Store(r0="3 boot other"))
    assert proven_share(XPU, {}) is XPU


# ---- real ranks ----

# Ranks 0 and 2 are on one node, rank 1 on another; all have been told that there are 3.
RANKS = r"""
import json, logging, logging.handlers, multiprocessing, os, sys
import torch.distributed as dist
from shardahead import prefetch_files
from shardahead.node import topology

folder, checkpoint = sys.argv[1:]

def main(rank):
    topology.BOOT_ID_PATH = f"{folder}/node{0 if rank == 1 else 1}"
    topology.STORE_WAIT_SECONDS = topology.STORE_STUCK_SECONDS = 60.0
    dist.init_process_group(
        "gloo", store=dist.FileStore(f"{folder}/store", 3), rank=rank, world_size=3
    )
    os.environ.update(LOCAL_RANK=str(int(rank == 2)), LOCAL_WORLD_SIZE="3")
    said = logging.handlers.BufferingHandler(100)
    logging.getLogger("shardahead").addHandler(said)
    found = []
    for settings in ({}, {"partition": "block", "block_size": "1MiB"}):
        handle = prefetch_files(checkpoint, **settings)
        handle.wait(60)
        found.append(handle.report().to_dict())
    dist.barrier()
    messages = [record.getMessage() for record in said.buffer if record.levelno > logging.INFO]
    with open(f"{folder}/result{rank}", "w") as file:
        json.dump({"reports": found, "said": messages}, file)
    dist.destroy_process_group()

context = multiprocessing.get_context("fork")
ranks = [context.Process(target=main, args=(rank,)) for rank in range(3)]
for process in ranks:
    process.start()
for process in ranks:
    process.join()
sys.exit(any(process.exitcode for process in ranks))
"""


def test_ranks_of_a_node_share_all_blocks_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("torch") is None:  # not imported: torch.distributed cannot be a second time
        pytest.skip("no torch")
    monkeypatch.setenv("SHARDAHEAD_BOARD_FOLDER", str(tmp_path / "missing"))
    checkpoint = tmp_path / "model.safetensors"
    checkpoint.write_bytes(bytes(8 * MIB))
    for number in (0, 1):
        (tmp_path / f"node{number}").write_text(f"boot-id-{number}\n")
    command = [sys.executable, "-c", RANKS, str(tmp_path), str(checkpoint)]
    subprocess.run(command, timeout=HANG_SECONDS, check=True)
    results: list[dict[str, Any]] = [
        json.loads((tmp_path / f"result{rank}").read_text()) for rank in range(3)
    ]
    for load in range(2):
        reports = [result["reports"][load] for result in results]
        assert [report["partition"] for report in reports] == ["block"] * 3
        planned = [report["planned_bytes"] for report in reports]
        assert planned[0] + planned[2] == planned[1] == 8 * MIB
        assert [(r["local_rank"], r["local_size"]) for r in reports] == [(0, 2), (0, 1), (1, 2)]
    for rank, result in enumerate(results):
        said = [text for text in result["said"] if "of which the job has" in text]
        assert len(said) == 1, (rank, result["said"])
