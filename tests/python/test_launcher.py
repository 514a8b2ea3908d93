"""Local rank and size as the launchers leave them in environment variables."""

from __future__ import annotations

import pytest
from conftest import STEP, messages, step

from shardahead.node.launcher import LocalTopology
from shardahead.node.topology import local_topology

pytestmark = pytest.mark.usefixtures("alone")

PAIRS = [
    ("SHARDAHEAD_LOCAL_RANK", "SHARDAHEAD_LOCAL_SIZE"),
    ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("LOCAL_RANK", "LOCAL_SIZE"),
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("PMI_LOCAL_RANK", "PMI_LOCAL_SIZE"),
    ("PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"),
    ("MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
]


@pytest.mark.parametrize(("rank_name", "size_name"), PAIRS)
def test_each_pair(rank_name: str, size_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = LocalTopology(3, 8, f"{rank_name} and {size_name}")
    assert local_topology(environ={rank_name: "3", size_name: "8"}) == expected
    assert local_topology(environ={rank_name: " 3", size_name: "8\n"}) == expected
    for rank, size in PAIRS:
        monkeypatch.delenv(rank, raising=False)
        monkeypatch.delenv(size, raising=False)
    monkeypatch.setenv(rank_name, "3")
    monkeypatch.setenv(size_name, "8")
    assert local_topology() == expected


def test_the_order_of_the_launchers() -> None:
    environ: dict[str, str] = {}
    for i, (rank_name, size_name) in reversed(list(enumerate(PAIRS))):
        if rank_name == "OMPI_COMM_WORLD_LOCAL_RANK":
            environ |= {rank_name: str(i), size_name: "9"}
            assert local_topology(environ=environ).rank == i
            environ |= STEP
            assert local_topology(environ=environ).source == "SLURM_LOCALID and SLURM_GTIDS"
            continue
        environ |= {rank_name: str(i), size_name: "9"}
        expected = LocalTopology(i, 9, f"{rank_name} and {size_name}")
        assert local_topology(environ=environ) == expected


def test_the_global_rank_and_the_gpu_say_nothing() -> None:
    environ = {
        "RANK": "3",
        "WORLD_SIZE": "8",
        "GROUP_RANK": "1",
        "CUDA_VISIBLE_DEVICES": "3",
        "PMI_RANK": "3",
        "PMI_SIZE": "8",
        "OMPI_COMM_WORLD_RANK": "3",
        "OMPI_COMM_WORLD_SIZE": "8",
    }
    assert local_topology(environ=environ) == LocalTopology(0, 1, "default")


@pytest.mark.parametrize(
    ("rank", "size"),
    [
        ("x", "4"),
        ("1", "x"),
        ("4", "4"),
        ("-1", "4"),
        ("0", "0"),
        ("1.0", "4"),
        ("1_0", "40"),
        ("\u0663", "4"),
        ("0x1", "4"),
        ("9" * 5000, "9" * 5001),
    ],
)
def test_invalid_variables_are_passed_over_and_logged_once(
    rank: str, size: str, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {
        "LOCAL_RANK": rank,
        "LOCAL_WORLD_SIZE": size,
        "PMI_LOCAL_RANK": "1",
        "PMI_LOCAL_SIZE": "2",
    }
    for _ in range(3):
        found = local_topology(environ=environ)
        assert found == LocalTopology(1, 2, "PMI_LOCAL_RANK and PMI_LOCAL_SIZE")
    (message,) = messages(caplog)
    assert f"LOCAL_RANK={rank!r}" in message
    assert f"LOCAL_WORLD_SIZE={size!r}" in message


@pytest.mark.parametrize(
    ("environ", "logged"),
    [
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK='3' is passed over: LOCAL_WORLD_SIZE is not set"),
        ({"LOCAL_WORLD_SIZE": "8"}, "LOCAL_WORLD_SIZE='8' is passed over: LOCAL_RANK is not set"),
        ({"LOCAL_SIZE": "8"}, ""),
        ({"LOCAL_RANK": "", "LOCAL_WORLD_SIZE": ""}, ""),
        (
            {"PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": ""},
            "PMI_LOCAL_RANK='1' is passed over: PMI_LOCAL_SIZE is not set",
        ),
    ],
)
def test_incomplete_variables(
    environ: dict[str, str], logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert local_topology(environ=environ) == LocalTopology(0, 1, "default")
    assert messages(caplog) == [logged] * bool(logged)


# ---- Slurm ----


def test_a_step_of_srun() -> None:
    expected = LocalTopology(1, 3, "SLURM_LOCALID and SLURM_GTIDS")
    assert local_topology(environ=step()) == expected
    assert local_topology(environ=step(SLURM_STEP_ID=None, SLURM_STEPID="7")) == expected


@pytest.mark.parametrize(
    ("tasks", "node", "size"),
    [
        ("4", "0", 4),
        ("4(x2),3", "0", 4),
        ("4(x2),3", "1", 4),
        ("4(x2),3", "2", 3),
        ("2,4(x3),8", "3", 4),
        ("2,4(x3),8", "4", 8),
        ("4(x1000000)", "999999", 4),
    ],
)
def test_tasks_per_node_is_a_list_of_nodes(tasks: str, node: str, size: int) -> None:
    environ = step(SLURM_GTIDS=None, SLURM_STEP_TASKS_PER_NODE=tasks, SLURM_NODEID=node)
    expected = LocalTopology(1, size, "SLURM_LOCALID and SLURM_STEP_TASKS_PER_NODE")
    assert local_topology(environ=environ) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_NODEID": "2"},
        {"SLURM_NODEID": "x"},
        {"SLURM_NODEID": None},
        {"SLURM_STEP_TASKS_PER_NODE": "4(y2),3"},
        {"SLURM_STEP_TASKS_PER_NODE": "4(x2"},
        {"SLURM_STEP_TASKS_PER_NODE": "1,1"},
        {"SLURM_STEP_TASKS_PER_NODE": ",,"},
    ],
)
def test_invalid_tasks_per_node(
    changes: dict[str, str | None], caplog: pytest.LogCaptureFixture
) -> None:
    environ = step(SLURM_GTIDS=None, SLURM_NTASKS_PER_NODE="8", **changes)
    expected = LocalTopology(1, 8, "SLURM_LOCALID and SLURM_NTASKS_PER_NODE")
    assert local_topology(environ=environ) == expected
    assert "SLURM_STEP_TASKS_PER_NODE=" in messages(caplog)[0]


def test_a_step_without_a_usable_rank(caplog: pytest.LogCaptureFixture) -> None:
    for rank in (None, "x", "9"):
        environ = step(SLURM_LOCALID=rank, PMI_LOCAL_RANK="1", PMI_LOCAL_SIZE="2")
        assert local_topology(environ=environ).source == "PMI_LOCAL_RANK and PMI_LOCAL_SIZE"
    assert messages(caplog)[:3] == [
        "SLURM_LOCALID='' is passed over: not a rank",
        "SLURM_LOCALID='x' is passed over: not a rank",
        "SLURM_LOCALID='9' and SLURM_GTIDS='4,5,6' are passed over: not a rank and a size",
    ]


def test_a_step_without_a_size(caplog: pytest.LogCaptureFixture) -> None:
    environ = step(SLURM_GTIDS=None, SLURM_STEP_TASKS_PER_NODE=None)
    assert local_topology(environ=environ) == LocalTopology(0, 1, "default")
    (message,) = messages(caplog)
    assert "SLURM_STEP_TASKS_PER_NODE=''" in message


@pytest.mark.parametrize("step_id", [None, "", "4294967291", "4294967290", "batch"])
def test_a_batch_script_is_one_process(
    step_id: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    # As found in the batch script of `sbatch --nodes=2 --ntasks-per-node=8`.
    environ = {
        "SLURM_JOB_ID": "200505",
        "SLURM_LOCALID": "0",
        "SLURM_PROCID": "0",
        "SLURM_NODEID": "0",
        "SLURM_GTIDS": "0",
        "SLURM_NTASKS": "16",
        "SLURM_NTASKS_PER_NODE": "8",
        "SLURM_TASKS_PER_NODE": "8(x2)",
    }
    if step_id is not None:
        environ["SLURM_STEP_ID"] = step_id
    assert local_topology(environ=environ) == LocalTopology(0, 1, "default")
    assert not messages(caplog)


def test_a_batch_script_that_was_submitted_inside_a_step_is_one_process() -> None:
    found = local_topology(environ=step(SLURM_LOCALID="0", SLURM_NODEID="0", SLURM_GTIDS="0"))
    assert (found.rank, found.size) == (0, 1)


def test_a_step_of_one_task_may_be_the_daemon_of_mpirun() -> None:
    environ = step(SLURM_LOCALID="0", SLURM_GTIDS="1", SLURM_STEP_TASKS_PER_NODE="1(x2)")
    expected = LocalTopology(0, 1, "SLURM_LOCALID and SLURM_GTIDS")
    assert local_topology(environ=environ) == expected
    environ |= {"OMPI_COMM_WORLD_LOCAL_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    assert (local_topology(environ=environ).rank, local_topology(environ=environ).size) == (3, 4)
