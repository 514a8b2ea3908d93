"""What travels with the load plans of the ranks, so that those of a node which read the same files
bring them in together, and those which read other files are not in each other's way. Pure.

Where memory is short a prefetch is a window ahead of the slowest reader of its files. So a rank
that reads a file of its own, as it saved it, has a prefetch of its own: else it would wait until
those of the files before it have read theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from shardahead.checkpoint.folder_rule import natural_sort_key

# A rank that wants less of a file than this part of what another wants of it, and less than so
# much, reads that by itself: a number that all ranks share, in a file that is one's own.
_LEAST_PART = 64
_LEAST_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class NodePlan:
    """Of one rank. `node` names the kernel that it runs on; `wanted` has the files that it reads,
    as the checkpoint names them, with the bytes.

    Once the plans of all were seen: `files` are those that this rank brings in together with others
    of its node, of which it is number `local_rank` of `local_size`; `groups` of such ranks are on
    the node.
    """

    node: str
    wanted: tuple[tuple[str, int], ...]
    files: tuple[str, ...] = ()
    local_rank: int = 0
    local_size: int = 1
    groups: int = 1


def in_file_order(files: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the order in which all ranks read them."""
    return tuple(sorted(set(files), key=natural_sort_key))


def by_node(plans: Sequence[NodePlan]) -> list[NodePlan]:
    """The same, in the same order, as they are once all are seen."""
    ranks_of: dict[str, list[int]] = {}
    for rank, plan in enumerate(plans):
        ranks_of.setdefault(plan.node, []).append(rank)
    found = [*plans]
    for ranks in ranks_of.values():
        files = _shared([dict(plans[rank].wanted) for rank in ranks])
        groups = _groups(files)
        for group in groups:
            together = in_file_order(file for number in group for file in files[number])
            for place, number in enumerate(group):
                found[ranks[number]] = replace(
                    plans[ranks[number]],
                    files=together,
                    local_rank=place,
                    local_size=len(group),
                    groups=len(groups),
                )
    return found


def _shared(wanted: Sequence[dict[str, int]]) -> list[set[str]]:
    """By rank, the files of which it wants so much that it takes part in bringing them in."""
    most: dict[str, int] = {}
    for each in wanted:
        for file, size in each.items():
            most[file] = max(most.get(file, 0), size)
    return [
        {
            file
            for file, size in each.items()
            if _LEAST_PART * size >= most[file] or size >= _LEAST_BYTES
        }
        for each in wanted
    ]


def _groups(files: Sequence[set[str]]) -> list[list[int]]:
    """The ranks, apart where nothing that they bring in leads from one to another."""
    groups: list[tuple[list[int], set[str]]] = []
    for rank, its in enumerate(files):
        ranks, all_of_them = [rank], set(its)
        apart = []
        for group in groups:
            if group[1].isdisjoint(its):
                apart.append(group)
            else:
                ranks += group[0]
                all_of_them |= group[1]
        groups = [*apart, (sorted(ranks), all_of_them)]
    return sorted(ranks for ranks, _ in groups)
