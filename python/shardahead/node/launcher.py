"""Local rank and local size as launchers leave them in environment variables.

Pure functions of the variables; what they make of each other is decided in topology.py. What is
invalid is logged once, at WARNING, and passed over; so is what is incomplete, unless another source
knows better: engines set one of the variables for a purpose of their own. Thread-safe.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# torchrun sets LOCAL_WORLD_SIZE (https://docs.pytorch.org/docs/stable/elastic/run.html), the
# launcher of DeepSpeed LOCAL_SIZE (deepspeed/launcher/launch.py).
_RANK_PAIRS = (
    ("SHARDAHEAD_LOCAL_RANK", ("SHARDAHEAD_LOCAL_SIZE",)),
    ("LOCAL_RANK", ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")),
)
# Open MPI; Intel MPI and MPICH's Hydra; Cray PMI; HPE PALS; MVAPICH2.
_MPI_PAIRS = (
    ("OMPI_COMM_WORLD_LOCAL_RANK", ("OMPI_COMM_WORLD_LOCAL_SIZE",)),
    ("MPI_LOCALRANKID", ("MPI_LOCALNRANKS",)),
    ("PMI_LOCAL_RANK", ("PMI_LOCAL_SIZE",)),
    ("PALS_LOCAL_RANKID", ("PALS_LOCAL_SIZE",)),
    ("MV2_COMM_WORLD_LOCAL_RANK", ("MV2_COMM_WORLD_LOCAL_SIZE",)),
)
# Batch scripts and interactive shells are steps above it: SchedMD/slurm, slurm/slurm.h.
_SLURM_MAX_NORMAL_STEP_ID = 0xFFFFFFF0

_RANK_NAMES = {"SLURM_LOCALID", *(name for name, _ in (*_RANK_PAIRS[1:], *_MPI_PAIRS))}

_logger = logging.getLogger("shardahead")
_warned: set[str] = set()


@dataclass(frozen=True)
class LocalTopology:
    """Process `rank` (from 0) of the `size` processes of its job on this node.

    `source` says where the two are from, for people to read.
    """

    rank: int
    size: int
    source: str

    def is_of_launcher(self) -> bool:
        """Whether variables say so that launchers set, and engines for purposes of their own."""
        return self.source.partition(" ")[0] in _RANK_NAMES


def from_rank_variables(environ: Mapping[str, str]) -> LocalTopology | None:
    """What SHARDAHEAD_LOCAL_RANK, or torchrun's and DeepSpeed's variables say."""
    return _first_pair(environ, _RANK_PAIRS)


def from_mpi(environ: Mapping[str, str]) -> LocalTopology | None:
    """What the launchers of the MPI implementations say."""
    return _first_pair(environ, _MPI_PAIRS)


def _first_pair(
    environ: Mapping[str, str], pairs: tuple[tuple[str, tuple[str, ...]], ...]
) -> LocalTopology | None:
    for rank_name, size_names in pairs:
        size_name = next((name for name in size_names if environ.get(name)), size_names[0])
        rank_text, size_text = environ.get(rank_name), environ.get(size_name)
        if not rank_text and not size_text:
            continue
        if not rank_text or not size_text:
            continue
        pair = _checked_pair(rank_name, rank_text, size_name, size_text, _number(size_text))
        if pair is not None:
            return pair
    return None


def warn_of_incomplete(environ: Mapping[str, str], *, known: bool) -> None:
    """Of pairs of variables of which one is missing. `known`: another source has answered; then
    only of those that are meant for nobody else.
    """
    for rank_name, size_names in _RANK_PAIRS[:1] if known else (*_RANK_PAIRS, *_MPI_PAIRS):
        size_name = next((name for name in size_names if environ.get(name)), size_names[0])
        missing = [name for name in (rank_name, size_name) if not environ.get(name)]
        if len(missing) != 1:
            continue
        there = size_name if missing == [rank_name] else rank_name
        # LOCAL_SIZE is a common word: alone, it need not be meant for us.
        if there != "LOCAL_SIZE":
            warn_once(f"{there}={environ[there]!r} is passed over: {missing[0]} is not set")


def from_slurm(environ: Mapping[str, str]) -> LocalTopology | None:
    """What srun says, or None outside a step of srun.

    slurmstepd sets SLURM_LOCALID and SLURM_GTIDS for whatever it starts, also for a batch script,
    but SLURM_STEP_ID only inside a step: SchedMD/slurm, src/common/env.c, setup_env(). A batch
    script that was submitted inside a step inherits the variables of that step; SLURM_GTIDS, the
    tasks on this node, is its own even then, hence comes first.
    """
    step = _number(environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID") or "")
    if step is None or step > _SLURM_MAX_NORMAL_STEP_ID:
        return None
    rank_text = environ.get("SLURM_LOCALID", "")
    if _number(rank_text) is None:
        warn_once(f"SLURM_LOCALID={rank_text!r} is passed over: not a rank")
        return None
    no_size = ("SLURM_STEP_TASKS_PER_NODE", "", None)
    for name, text, size in list(_slurm_sizes(environ)) or [no_size]:
        pair = _checked_pair("SLURM_LOCALID", rank_text, name, text, size)
        if pair is not None:
            return pair
    return None


def _slurm_sizes(environ: Mapping[str, str]) -> Iterator[tuple[str, str, int | None]]:
    """The variables that give the local size: name, text and, where it is valid, the size."""
    if text := environ.get("SLURM_GTIDS"):
        tasks = [_number(task) for task in text.split(",")]
        yield "SLURM_GTIDS", text, None if None in tasks else len(tasks)
    if text := environ.get("SLURM_STEP_TASKS_PER_NODE"):
        # SLURM_NODEID counts the nodes of the step, save in heterogeneous jobs: srun(1).
        node = _number(environ.get("SLURM_NODEID", ""))
        size = None if node is None else _slurm_tasks_on_node(text, node)
        yield "SLURM_STEP_TASKS_PER_NODE", text, size
    if text := environ.get("SLURM_NTASKS_PER_NODE"):
        yield "SLURM_NTASKS_PER_NODE", text, _number(text)


def _slurm_tasks_on_node(tasks_per_node: str, node: int) -> int | None:
    """The number of tasks on the node numbered `node`: 3 for node 2 of `4(x2),3`."""
    for part in tasks_per_node.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?", part.strip())
        if match is None:
            return None
        nodes = int(match[2] or 1)
        if node < nodes:
            return int(match[1])
        node -= nodes
    return None


def _checked_pair(
    rank_name: str, rank_text: str, size_name: str, size_text: str, size: int | None
) -> LocalTopology | None:
    rank = _number(rank_text)
    if rank is not None and size is not None and rank < size:
        return LocalTopology(rank, size, f"{rank_name} and {size_name}")
    pair = f"{rank_name}={rank_text!r} and {size_name}={size_text!r}"
    warn_once(f"{pair} are passed over: not a rank and a size")
    return None


def _number(text: str) -> int | None:
    # Ten digits are enough for Slurm's 32-bit numbers.
    return int(text) if re.fullmatch(r"\s*[0-9]{1,10}\s*", text, re.ASCII) else None


def warn_once(message: str) -> None:
    """At WARNING, however often it is found."""
    if message not in _warned:
        _warned.add(message)
        _logger.warning("%s", message)
