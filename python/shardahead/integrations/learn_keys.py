"""Which loads of an engine are alike: the key under which a rank leaves what it has touched.

A rank of an engine reads by its places in the engine's groups, tensor, pipeline, expert and data
parallel, which are the same at the next start on whatever node. Asks groups that are there, and
makes none. Any thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shardahead.prefetch.options import Options

_VARIABLE = "SHARDAHEAD_LEARN_KEY"


def keyed(
    options: Options, engine: str, state: str, groups: Mapping[str, str], model: str = ""
) -> Options:
    """`options` with the key of this rank of `engine`, behind the key that was asked for.

    `state`: the module that has the engine's groups; `groups`: by what a group is called here, the
    function there that gives it. Unchanged where none of them is there: then the rank counts.
    `model`: the class that is loaded, where it is known: a draft model may have the checkpoint of
    the model that it drafts for.
    """
    places = places_in(state, groups)
    if not places:
        return options
    asked = options.learn_key or os.environ.get(_VARIABLE, "")
    return replace(options, learn_key=" ".join(filter(None, (asked, engine, model, *places))))


def places_in(state: str, groups: Mapping[str, str]) -> list[str]:
    """ "tp 1 of 4", for each of the groups that is there and has more than one rank, or for the
    first that is there.
    """
    found: list[str] = []
    for name, function in groups.items():
        try:
            group: Any = getattr(sys.modules[state], function)()
            rank, size = int(group.rank_in_group), int(group.world_size)
        except Exception:  # not there, not initialized, or otherwise in this version
            continue
        if size > 1 or not found:
            found.append(f"{name} {rank} of {size}")
    return found
