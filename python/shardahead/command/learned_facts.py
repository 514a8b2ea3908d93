"""What `doctor` says of learned loads: which profiles of a checkpoint there are, and whether one
would help. Reads the folder that SHARDAHEAD_LEARN names; advises by what was found.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from shardahead.checkpoint.shards import Shard
from shardahead.command.learned_screen import profiles_of
from shardahead.command.piece_of_advice import Advice
from shardahead.node.job_rank import job_size
from shardahead.prefetch.byte_ranges import merged, total
from shardahead.units import counted, format_bytes, format_share, printable

NO_FOLDER = "no folder"


@dataclass(frozen=True)
class LearnedFacts:
    """`folder`: that of SHARDAHEAD_LEARN, None without it; `profiles`: how many of these shards lie
    there, and `together_bytes`: what any of them wants of `size_bytes`. `problem`: why none can.
    `job_ranks`: of the whole job, None where no launcher tells.
    """

    folder: str | None
    profiles: int
    together_bytes: int
    size_bytes: int
    problem: str
    job_ranks: int | None


def learned_facts(folder: str | None, shards: Sequence[Shard]) -> LearnedFacts:
    """Looks; never raises for what it finds."""
    size_bytes = sum(shard.size_bytes for shard in shards)
    problem, ranges = "", []
    if folder is not None and not os.path.isdir(folder):
        problem = NO_FOLDER
    elif folder is not None:
        try:
            ranges = [profile.ranges for _, profile in profiles_of(folder, shards)]
        except ValueError:
            pass  # none is there yet
        except OSError as error:
            problem = error.strerror or str(error)
    together = [merged(chain(*of_shard)) for of_shard in zip(*ranges, strict=True)]
    together_bytes = sum(map(total, together))
    return LearnedFacts(folder, len(ranges), together_bytes, size_bytes, problem, job_size())


def learned_text(found: LearnedFacts) -> str | None:
    """In a line; None where there is nothing to say."""
    if found.folder is None:
        return None
    folder = printable(found.folder)
    if found.problem:
        return f"nothing, for {folder} is not usable: {found.problem}"
    if not found.profiles:
        return f"nothing of this checkpoint yet, in {folder}"
    share = format_share(found.together_bytes, found.size_bytes)
    return (
        f"{counted(found.profiles, 'profile')} in {folder}, which together want "
        f"{format_bytes(found.together_bytes)} ({share})"
    )


def learning_advice(found: LearnedFacts | None, node_ranks: int) -> Iterator[Advice]:
    """Where a node brings in more than its ranks may need."""
    if found is None:
        return
    if found.folder is not None and found.problem:
        folder = printable(found.folder)
        problem = f"nothing is learned: SHARDAHEAD_LEARN names {folder}, {found.problem}"
        make = (f"mkdir -p {shlex.quote(found.folder)}",) if found.problem == NO_FOLDER else ()
        yield Advice(problem, make)
    elif found.folder is None and found.job_ranks is not None and found.job_ranks > node_ranks:
        nodes = -(-found.job_ranks // node_ranks)
        yield Advice(
            f"this job has {found.job_ranks} ranks, {node_ranks} of them on this node: {nodes} "
            "nodes or more, each of which brings in all of the checkpoint, whatever its ranks use "
            "of it. Loads that learn bring in what was used, from the second on",
            ("export SHARDAHEAD_LEARN=FOLDER  # one that all nodes share",),
            instead=("load with slices= or names=, which say it from the first load on",),
        )
