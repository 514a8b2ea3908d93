"""Several nodes that stage one checkpoint: the storage is read once, whoever dies, stops, comes
late or lies. Each node is a process with a mount, a page cache and a folder of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, MakeMount, clean_environment, eventually, finish
from replica_support import check_same, make_model, place

SIZES = (70 * MIB + 123, 57, 33 * MIB, 4096)  # none is empty: that would be damage, and said
TOTAL = sum(SIZES)
HANG_SECONDS = 200.0


class Nodes:
    """`count` nodes of a job on this machine, each with a mount of its own."""

    def __init__(
        self, folder: Path, make_mount: MakeMount, count: int, rate: float, **options: Any
    ) -> None:
        self.folder = folder
        self.count = count
        self.model = make_model(folder / "source" / "model", SIZES)
        options["rate_mb_per_s"] = rate
        self.mounts = [make_mount(self.model.parent, **options) for _ in range(count)]
        for node in range(count):
            self.local(node).mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def local(self, node: int) -> Path:
        return self.folder / f"local-{node}"

    def start(
        self,
        node: int,
        *,
        secret: str = "a secret of the job",
        words: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "shardahead", "stage", "--json"),
                *(str(self.mounts[node].mountpoint / "model"), "--to", str(self.local(node))),
                *("--rendezvous", f"127.0.0.1:{self.port}", "--nodes", str(self.count)),
                *(words or ("--node-rank", str(node))),
            ],
            env={**clean_environment(), "SHARDAHEAD_SECRET": secret, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, node: int, run: subprocess.Popen[str]) -> dict[str, Any]:
        """Whole and right; what it said."""
        done = finish(run, HANG_SECONDS)
        assert done.returncode == 0, done.stderr
        check_same(self.model, str(self.local(node) / "model"))
        said: dict[str, Any] = json.loads(done.stdout)
        assert said["copied_bytes"] + said["received_bytes"] + said["kept_bytes"] == TOTAL
        return said

    def is_roll_kept(self) -> bool:
        with socket.socket() as asks:
            return asks.connect_ex(("127.0.0.1", self.port)) == 0

    def staged(self, node: int) -> int:
        staging = Path(place(self.local(node)).staging)
        return sum(path.stat().st_blocks * 512 for path in staging.glob("*.safetensors"))

    def served(self) -> float:
        return sum(mount.counters().bytes_served for mount in self.mounts) / TOTAL


def kill_all(run: subprocess.Popen[str], number: int) -> None:
    """Of a node, as when its machine goes: also the process that talks."""
    os.killpg(run.pid, number)


# A mount that reads on by a block after each of them would read all of it on each node.
@pytest.mark.parametrize(
    ("by", "readahead_kib"), [("rank", 128), ("arrival", 128), ("rank", 4 * 1024), ("rank", 16384)]
)
def test_the_storage_is_read_once(
    tmp_path: Path, make_mount: MakeMount, by: str, readahead_kib: int
) -> None:
    if readahead_kib > 128 and os.geteuid():
        pytest.skip("only root can have a mount read ahead by more than 128 KiB")
    nodes = Nodes(tmp_path, make_mount, 3, rate=12, readahead_kib=readahead_kib)
    # Quiet, so that a number is typed where it is none of --node-rank's.
    words = ("--quiet",) if by == "arrival" else ()
    runs = [nodes.start(node, words=words) for node in range(3)]
    said = [nodes.end(node, run) for node, run in enumerate(runs)]
    assert nodes.served() <= 1.05
    assert sorted(each["exchange"]["node"] for each in said) == [0, 1, 2]
    for each in said:
        assert each["exchange"]["alone"] == ""
        assert each["received_bytes"] > 0.5 * TOTAL
        assert each["exchange"]["wrong_blocks"] == each["exchange"]["refused"] == 0


def test_nodes_send_each_other_blocks_without_torch(tmp_path: Path, make_mount: MakeMount) -> None:
    """Its import takes longer than much that is loaded, on each node."""
    (tmp_path / "torch.py").write_text("raise ImportError('there is no torch')")
    nodes = Nodes(tmp_path, make_mount, 2, rate=40)
    env = {"PYTHONPATH": str(tmp_path)}
    said = [nodes.end(n, run) for n, run in enumerate([nodes.start(n, env=env) for n in (0, 1)])]
    assert nodes.served() <= 1.05
    assert all(each["received_bytes"] > 0 and not each["exchange"]["alone"] for each in said)


@pytest.mark.parametrize("fate", ["killed", "stopped"])
@pytest.mark.parametrize("who", [0, 2])  # the host of the rendezvous may be any of them
def test_the_others_read_what_a_node_leaves(
    tmp_path: Path, make_mount: MakeMount, fate: str, who: int
) -> None:
    nodes = Nodes(tmp_path, make_mount, 3, rate=8)
    runs = [nodes.start(node) for node in range(3)]
    eventually(lambda: nodes.staged(who) > 20 * MIB, "nothing is staged", seconds=60)
    kill_all(runs[who], signal.SIGKILL if fate == "killed" else signal.SIGSTOP)
    others = [nodes.end(node, runs[node]) for node in range(3) if node != who]
    # Nobody reads what it was sent, nor anything twice; what the third had in flight is lost.
    read = sum(said["copied_bytes"] for said in others) + nodes.staged(who)
    assert nodes.served() * TOTAL <= 1.02 * read + 64 * MIB
    if fate == "killed":
        finish(runs[who])
        assert not (nodes.local(who) / "model").exists()
    else:
        kill_all(runs[who], signal.SIGCONT)
        nodes.end(who, runs[who])


def test_a_node_that_comes_late_takes_part(tmp_path: Path, make_mount: MakeMount) -> None:
    nodes = Nodes(tmp_path, make_mount, 2, rate=6)
    first = nodes.start(0)
    eventually(lambda: nodes.staged(0) > 20 * MIB, "nothing is staged", seconds=60)
    second = nodes.start(1)
    said = [nodes.end(0, first), nodes.end(1, second)]
    assert nodes.served() <= 1.6
    assert said[1]["received_bytes"] > 0


def test_who_comes_after_a_node_is_gone_is_asked_for_what_is_dealt_to_it(
    tmp_path: Path, make_mount: MakeMount
) -> None:
    nodes = Nodes(tmp_path, make_mount, 3, rate=8)
    first = nodes.start(0)
    # It keeps the roll: here all nodes have the address of the rendezvous, and who dies may not.
    eventually(nodes.is_roll_kept, "nobody keeps the roll", seconds=60)
    dies = nodes.start(2)
    eventually(lambda: nodes.staged(2) > 20 * MIB, "nothing is staged", seconds=60)
    kill_all(dies, signal.SIGKILL)
    finish(dies)
    second = nodes.start(1)
    said = [nodes.end(0, first), nodes.end(1, second)]
    assert [each["exchange"]["alone"] for each in said] == ["", ""]
    assert sum(each["copied_bytes"] for each in said) <= TOTAL  # neither reads what the other has


def test_a_node_that_has_most_is_sent_the_rest(tmp_path: Path, make_mount: MakeMount) -> None:
    nodes = Nodes(tmp_path, make_mount, 2, rate=30)
    begun = nodes.start(1)  # alone, for the other never comes
    eventually(lambda: nodes.staged(1) > 60 * MIB, "nothing is staged", seconds=60)
    kill_all(begun, signal.SIGKILL)
    finish(begun)
    runs = [nodes.start(0), nodes.start(1)]
    said = [nodes.end(0, runs[0]), nodes.end(1, runs[1])]
    assert said[1]["kept_bytes"] > 32 * MIB
    assert said[0]["exchange"]["sent_bytes"] <= TOTAL - said[1]["kept_bytes"]


def test_a_node_that_never_comes_is_not_waited_for(tmp_path: Path, make_mount: MakeMount) -> None:
    nodes = Nodes(tmp_path, make_mount, 2, rate=100)
    said = nodes.end(0, nodes.start(0))
    assert (said["copied_bytes"], said["received_bytes"]) == (TOTAL, 0)


@pytest.mark.parametrize("differs", ["checkpoint", "secret"])
def test_who_differs_reads_alone(tmp_path: Path, make_mount: MakeMount, differs: str) -> None:
    nodes = Nodes(tmp_path, make_mount, 2, rate=30)
    if differs == "checkpoint":
        other = tmp_path / "other" / "model"
        shutil.copytree(nodes.model, other)
        shard = sorted(other.glob("*.safetensors"))[0]
        content = bytearray(shard.read_bytes())
        content[5] ^= 1
        shard.write_bytes(content)
        nodes.mounts[1] = make_mount(other.parent, rate_mb_per_s=30)
    runs = [nodes.start(0)]
    runs.append(
        nodes.start(1, secret="another one" if differs == "secret" else "a secret of the job")
    )
    nodes.end(0, runs[0])
    if differs == "checkpoint":
        nodes.model = other
    said = nodes.end(1, runs[1])
    assert said["received_bytes"] == 0
