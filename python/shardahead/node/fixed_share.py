"""The local rank and size on which a fixed share of the work may rest.

What launchers say is believed wherever it decides about nothing. A share is another matter: vLLM's
worker for XPUs sets LOCAL_WORLD_SIZE to the size of the whole job, beside a true LOCAL_RANK, and
what falls to ranks that are not on this node, no one prefetches. Any thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from shardahead.node.job_rank import launched_rank
from shardahead.node.launcher import LocalTopology, warn_once
from shardahead.node.topology import from_store, torch_distributed


def proven_share(where: LocalTopology, environ: Mapping[str, str] | None = None) -> LocalTopology:
    """`where`, or what the job's store says where a launcher says that more of the job are here
    than there are.

    Not a collective, and bounded as `local_topology` is: a rank that asks alone believes the
    launcher. A process group that is only a part of what was launched proves nothing.
    """
    if not where.is_of_launcher() or where.size == 1:
        return where
    group_size = _size_of_group()
    launched = launched_rank(os.environ if environ is None else environ)
    job_size = group_size if launched is None else launched[1]
    if group_size != job_size or (launched is None and group_size < where.size):
        return where
    found = from_store()
    if found is None or found.source.startswith("default") or found.size >= where.size:
        return where
    warn_once(
        f"{where.source} say {where.size} processes of this node, of which the job has "
        f"{found.size}: what is shared out is shared by {found.size}"
    )
    return replace(found, source=f"{found.source}, instead of {where.source}")


def _size_of_group() -> int:
    """Of the default process group; 0 without one."""
    dist = torch_distributed()
    try:
        return 0 if dist is None else int(dist.get_world_size())
    except (AttributeError, RuntimeError, ValueError):  # it is ended meanwhile
        return 0
