"""Which of the processes that a launcher has started on a node prints what a command found of that
node: all of them find the same. It asks for no more than the environment; any thread.
"""

from __future__ import annotations

import argparse

from shardahead.node.topology import local_topology


def shows(options: argparse.Namespace) -> bool:
    """Whether this process is local rank 0, or was given its rank by an option. Each is asked for
    an object of its own by `warm --json`, for the script of a shell by `completion`.
    """
    if options.command == "completion" or (options.command == "warm" and options.json):
        return True
    given = (getattr(options, "local_rank", None), getattr(options, "local_size", None))
    return given != (None, None) or local_topology().rank == 0
