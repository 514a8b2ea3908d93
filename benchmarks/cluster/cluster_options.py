"""The options of the cluster's test bed. Checks their values; touches nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cluster_figures import Setting
from cluster_methods import METHODS

FAULTS = ("none", "kill", "stop", "late")
MOST_NODES = 64


def parse_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cluster.py", description="Several nodes load one checkpoint; README.md says how."
    )
    parser.add_argument("--nodes", type=int, default=4, metavar="M", help="how many [4]")
    parser.add_argument("--size-mib", type=int, default=256, help="of the checkpoint [256]")
    parser.add_argument("--shards", type=int, default=4, help="of the checkpoint [4]")
    parser.add_argument("--storage-mb-per-s", type=float, default=200, help="its link [200]")
    parser.add_argument(
        "--storage-not-shared", action="store_true", help="each node has such a link of its own"
    )
    parser.add_argument(
        "--readahead-kib", type=int, default=4096, help="of the mounts, as filers have it [4096]"
    )
    parser.add_argument("--round-trip-ms", type=float, default=1, help="to the storage [1]")
    parser.add_argument(
        "--node-link-mb-per-s",
        type=float,
        default=1000,
        help="between nodes, in each direction, 0: no limit [1000]",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each method [3]")
    parser.add_argument(
        "--methods", default=",".join(METHODS), help=f"of {', '.join(METHODS)} [all]"
    )
    parser.add_argument("--fault", choices=FAULTS, default="none", help="what befalls a node")
    parser.add_argument("--fault-node", type=int, metavar="I", help="which [the last one]")
    parser.add_argument(
        "--give-up-seconds",
        type=float,
        help="of a run [half a minute, and 3 times what M loads take]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="for all runs")
    options = parser.parse_args(words)
    for name, least, most in (("nodes", 1, MOST_NODES), ("size_mib", 1, 2**20), ("rounds", 1, 999)):
        if not least <= getattr(options, name) <= most:
            parser.error(f"--{name.replace('_', '-')} must be between {least} and {most}")
    unknown = [name for name in options.methods.split(",") if name not in METHODS]
    if unknown:
        parser.error(f"--methods: no {', '.join(unknown)}")
    if options.storage_mb_per_s <= 0 or options.node_link_mb_per_s < 0:
        parser.error("rates are numbers of 10^6 bytes/s; the storage has one")
    if options.fault_node is None:
        options.fault_node = options.nodes - 1
    if not 0 <= options.fault_node < options.nodes or (
        options.fault != "none" and options.nodes < 2
    ):
        parser.error(f"--fault-node: no node {options.fault_node} beside another")
    if options.give_up_seconds is None:
        options.give_up_seconds = 30 + 3 * options.nodes * _load_seconds(options)
    return options


def setting_of(options: argparse.Namespace, size_bytes: int) -> Setting:
    """`size_bytes`: of the checkpoint as it was made."""
    return Setting(
        nodes=options.nodes,
        size_bytes=size_bytes,
        storage_mb_per_s=options.storage_mb_per_s,
        storage_shared=not options.storage_not_shared,
        node_link_mb_per_s=options.node_link_mb_per_s,
        round_trip_ms=options.round_trip_ms,
        readahead_kib=options.readahead_kib,
        rounds=options.rounds,
        fault=options.fault,
        fault_node=options.fault_node,
    )


def _load_seconds(options: argparse.Namespace) -> float:
    """Of one node, from storage alone."""
    return float(options.size_mib * 2**20 / (options.storage_mb_per_s * 1e6))
