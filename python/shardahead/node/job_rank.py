"""Which rank of the whole job this process is, in words that are the same at the next start of it.

It names what a rank reads, and never splits work: that is for the local rank. torch is asked if the
process has it imported already, and without a collective. Any thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from shardahead.node.launcher import LocalTopology

# torchrun and DeepSpeed; Open MPI; PMI of Intel MPI, MPICH and Cray; MVAPICH2. Slurm inside a step.
_PAIRS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)
_MOST_RANKS = 10**9


def job_rank(where: LocalTopology, environ: Mapping[str, str] | None = None) -> str:
    """ "rank 3 of 16", as an initialized torch.distributed says, else the launcher's variables;
    "local rank 3 of 8" where no more is known.
    """
    found = _from_distributed() or launched_rank(os.environ if environ is None else environ)
    if found is None:
        return f"local rank {where.rank} of {where.size}"
    return f"rank {found[0]} of {found[1]}"


def job_size(environ: Mapping[str, str] | None = None) -> int | None:
    """How many ranks the job has, as `job_rank` knows it; None where no one tells."""
    found = _from_distributed() or launched_rank(os.environ if environ is None else environ)
    return None if found is None else found[1]


def _from_distributed() -> tuple[int, int] | None:
    dist: Any = sys.modules.get("torch.distributed")
    try:
        if dist and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return int(dist.get_rank()), int(dist.get_world_size())
    except (AttributeError, RuntimeError, ValueError):  # another thread is still importing it
        return None
    return None


def launched_rank(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Rank and size of the job as a launcher's variables say; None where they say nothing."""
    for rank_name, size_name in _PAIRS:
        # In a batch script Slurm's speak of what srun would start.
        if rank_name.startswith("SLURM_") and not environ.get("SLURM_STEP_ID"):
            continue
        rank, size = _number(environ.get(rank_name)), _number(environ.get(size_name))
        if rank is not None and size is not None and rank < size:
            return rank, size
    return None


def _number(text: str | None) -> int | None:
    if text and text.isascii() and text.isdigit() and len(text) < 10 and int(text) < _MOST_RANKS:
        return int(text)
    return None
