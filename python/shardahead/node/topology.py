"""Local rank and local size: which of the processes of a load on this node this one is.

Never the global rank, never the number of a GPU, and never a collective that the caller did not
ask for: rank 0 alone may be loading. torch is used if the process has it imported already, and
is not imported here. Thread-safe.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardahead.arguments import whole_number
from shardahead.node.launcher import (
    LocalTopology,
    from_mpi,
    from_rank_variables,
    from_slurm,
    warn_of_incomplete,
)

#: How long a process waits for the other ranks on torch.distributed's store, in seconds. Once
#: for each store: where it was in vain, later calls only look.
STORE_WAIT_SECONDS = 2.0
#: How long, on top of that, a store may take that does not answer at all, in seconds.
STORE_STUCK_SECONDS = 1.0
#: The largest job that is asked through the store: each rank looks at the key of each other.
STORE_MAX_RANKS = 1024
STORE_KEY_PREFIX = "shardahead/node/"
#: Names the running kernel, which has one page cache, also across containers: random(4).
BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"

_stores_given_up: weakref.WeakSet[Any] = weakref.WeakSet()


class _NoAnswerError(Exception):
    """Why a store does not say which ranks are on this node."""


def local_topology(
    group: object | None = None,
    *,
    local_rank: int | None = None,
    local_size: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> LocalTopology:
    """Local rank and local size of this process, and where they were found.

    The first of these that knows:

    1. `local_rank` and `local_size`, given together (`local_size=1` also alone).
    2. `group`, a process group of torch.distributed: its ranks whose node is this one, in the
       order of the group. A collective: each rank of the group must make this call.
    3. `SHARDAHEAD_LOCAL_RANK` and `SHARDAHEAD_LOCAL_SIZE`.
    4. `LOCAL_RANK` and `LOCAL_WORLD_SIZE` (torchrun) or `LOCAL_SIZE` (DeepSpeed).
    5. Slurm, inside a step of srun only. In a batch script the variables speak of what srun would
       start, while one process runs; `SLURM_STEP_ID` tells the two apart.
    6. Open MPI, Intel MPI and MPICH, Cray PMI, HPE PALS, MVAPICH2.
    7. An initialized torch.distributed, without a collective: each rank leaves the boot id of its
       kernel in the job's store and waits up to `STORE_WAIT_SECONDS` for those of the others.
    8. 0 of 1.

    Where 5 or 6 say 0 of 1, 7 is asked first: the launcher may have started a daemon that
    started this process and others. Variables that are empty are not set. Those that are
    invalid are logged once, at WARNING, and passed over; incomplete ones where nothing else
    answers, for vLLM sets LOCAL_WORLD_SIZE alone. `environ` stands in for `os.environ`.

    Raises:
        TypeError: `local_rank` or `local_size` is not an integer.
        ValueError: one of them is missing or out of range; this process is not in `group`.
        RuntimeError: `group` is given and torch.distributed is not initialized; or what the
            collective raises.
    """
    if local_rank is not None or local_size is not None:
        return _from_arguments(local_rank, local_size)
    if group is not None:
        return _from_group(group)
    environ = os.environ if environ is None else environ
    found = from_rank_variables(environ) or _without_rank_variables(environ)
    known = found is not None and not found.source.startswith("default")
    warn_of_incomplete(environ, known=known)
    return found or LocalTopology(0, 1, "default")


def _without_rank_variables(environ: Mapping[str, str]) -> LocalTopology | None:
    launched = from_slurm(environ)
    if launched is None or launched.size == 1:
        launched = from_mpi(environ) or launched
    if launched is None or launched.size == 1:
        return from_store() or launched
    return launched


def _from_arguments(rank: int | None, size: int | None) -> LocalTopology:
    if rank is None and size == 1:
        rank = 0
    for name, value in (("local_rank", rank), ("local_size", size)):
        if value is None:
            raise ValueError(f"{name} is missing: local_rank={rank!r}, local_size={size!r}")
    rank = whole_number("local_rank", rank, "an integer")
    size = whole_number("local_size", size, "an integer")
    if size < 1:
        raise ValueError(f"local_size must be at least 1, not {size}")
    if not 0 <= rank < size:
        raise ValueError(f"local_rank must be from 0 to local_size - 1 = {size - 1}, not {rank}")
    return LocalTopology(rank, size, "argument")


def _from_group(group: object) -> LocalTopology:
    dist = torch_distributed()
    if dist is None:
        raise RuntimeError("group is given, but torch.distributed is not initialized")
    own_rank = dist.get_rank(group)
    if own_rank < 0:
        raise ValueError("this process is not in group")
    identity, note = node_identity()
    identities: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(identities, identity, group=group)
    rank = identities[:own_rank].count(identity)
    return LocalTopology(rank, identities.count(identity), f"torch.distributed (group{note})")


def torch_distributed() -> Any | None:
    """The module torch.distributed, if it is imported and initialized."""
    dist: Any = sys.modules.get("torch.distributed")
    try:
        return dist if dist and dist.is_available() and dist.is_initialized() else None
    except AttributeError:  # another thread is still importing it
        return None


def from_store() -> LocalTopology | None:
    """What the job's store says; None without an initialized torch.distributed. A `source` that
    begins with "default" says why it does not know.
    """
    dist = torch_distributed()
    if dist is None:
        return None
    identity, note = node_identity()
    try:
        rank, size = dist.get_rank(), dist.get_world_size()
        if size == 1:
            return LocalTopology(0, 1, "torch.distributed (one rank)")
        if size > STORE_MAX_RANKS:
            raise _NoAnswerError(f"{size} ranks are too many to ask through a store")
        # Private, so it may be missing. The MPI backend has no store.
        store = sys.modules["torch.distributed.distributed_c10d"]._get_default_store()
        if store is None:
            raise _NoAnswerError("torch.distributed has no store")
        answers = _exchange(store, rank, size, identity)
    except _NoAnswerError as error:
        return LocalTopology(0, 1, f"default: {error}")
    except Exception as error:
        return LocalTopology(0, 1, f"default: torch.distributed's store failed: {error!r}")
    here = [other for other in range(size) if answers[other] == identity]
    return LocalTopology(here.index(rank), len(here), f"torch.distributed (store{note})")


def _exchange(store: Any, rank: int, size: int, identity: str) -> dict[int, str]:
    """The identities of the nodes of all ranks."""
    wait_seconds = 0.0 if store in _stores_given_up else STORE_WAIT_SECONDS
    answers: dict[int, str] = {}
    errors: list[Exception] = []

    def ask() -> None:
        try:
            _ask_store(store, rank, size, identity, wait_seconds, answers)
        except Exception as error:
            errors.append(error)

    # In a thread of its own: another thread's get() may hold the store's connection for minutes.
    worker = threading.Thread(target=ask, name="shardahead-topology", daemon=True)
    worker.start()
    worker.join(wait_seconds + STORE_STUCK_SECONDS)
    if errors:
        raise errors[0]
    if len(answers) == size:
        return answers
    _stores_given_up.add(store)
    if worker.is_alive():
        raise _NoAnswerError("torch.distributed's store does not respond")
    ranks = f"{len(answers)} of {size} ranks answered on torch.distributed's store"
    raise _NoAnswerError(f"{ranks} within {STORE_WAIT_SECONDS:g} s")


def _ask_store(
    store: Any, rank: int, size: int, identity: str, wait_seconds: float, answers: dict[int, str]
) -> None:
    keys = [f"{STORE_KEY_PREFIX}{other}" for other in range(size)]
    # A store can outlive a process group: what an earlier one of another size left is told by it.
    own_entry = f"{size} {identity}"

    def read(other: int) -> None:
        # get() waits for minutes for a key that is not set: only after check().
        ranks, _, node = store.get(keys[other]).decode("utf-8", "replace").partition(" ")
        if ranks == str(size):
            answers[other] = node

    if not store.check([keys[rank]]) or store.get(keys[rank]) != own_entry.encode():
        store.set(keys[rank], own_entry)
    deadline = time.monotonic() + wait_seconds
    pause_seconds = 0.001
    while True:
        pending = [other for other in range(size) if other not in answers]
        all_there = store.check([keys[other] for other in pending])
        last_look = time.monotonic() >= deadline
        for other in pending:
            if all_there or (last_look and store.check([keys[other]])):
                read(other)
        if last_look or len(answers) == size:
            return
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, 0.05)


def node_identity() -> tuple[str, str]:
    """What names this node, and a note for the source if it is not the boot id."""
    try:
        boot_id = Path(BOOT_ID_PATH).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        boot_id = ""
    if boot_id:
        return f"boot {boot_id}", ""
    return f"host {socket.gethostname()}", ", node by host name: no boot id"
