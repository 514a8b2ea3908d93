"""Which experts a rank of vLLM has not, and which rows of matrices it reads, as its own modules
say: its loading passes over the rest, with --enable-ep-weight-filter or without. Imports nothing of
vLLM: what a model has, is imported. Any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from shardahead.integrations.passed_over import Experts, Rows, loads_as
from shardahead.integrations.row_shares import Layers, share

_EXPERTS = "vllm.model_executor.layers.fused_moe.routed_experts"
_LAYERS = Layers(
    "vllm.model_executor.layers.linear",
    "vllm.model_executor.layers.vocab_parallel_embedding",
    lambda module: (module.tp_rank, module.tp_size),
)
# The module that has the weights is a part of the one that the checkpoint knows.
_PART = ".routed_experts"
# "experts.7.up_proj.", as the checkpoint has it behind the name of that one.
_NUMBERED = re.compile(r"\bexperts\.((?:base_layer\.)?[0-9]+)\.([^.]+)\.")
# The matrices of an expert that are cut by rows, as vLLM calls them.
_CUT_BY_ROWS = {"w1", "w3"}


def experts(name: str, module: Any) -> Experts | None:
    """The routed experts of the module `name`; None where it is no module of experts, or loads in a
    way of its own.
    """
    if not loads_as(module, _EXPERTS, "RoutedExperts"):
        return None
    places: dict[str, set[int]] = {}  # in the order of physical experts, some more than once
    by_rows: set[str] = set()
    for _, named, place, shard in module.get_expert_mapping():
        found = _NUMBERED.search(named)
        if found is None:
            continue
        places.setdefault(found[1], set()).add(place)
        if shard in _CUT_BY_ROWS:
            by_rows.add(found[2])
    local = module._map_global_expert_id_to_local_expert_id
    here = {place for place in set().union(*places.values()) if local(place) != -1}
    absent = [expert for expert, at in places.items() if at.isdisjoint(here)]
    part = _rows_of_one(module)
    rows = {} if part is None else dict.fromkeys(by_rows, part)
    return Experts(name.removesuffix(_PART), absent, len(places), rows)


def rows(name: str, module: Any) -> Iterator[tuple[str, Rows]]:
    """See Layers.rows()."""
    return _LAYERS.rows(name, module)


def _rows_of_one(module: Any) -> Rows | None:
    """Of a matrix of one expert; None where a rank has all of it, or it is stored otherwise."""
    config = getattr(module, "moe_config", None)
    weight = getattr(module, "w13_weight", None)
    stored = weight is not None and not getattr(weight, "is_transposed", False)
    if config is None or config.tp_size < 2 or not stored:
        return None
    return share(config.tp_rank, config.tp_size, config.intermediate_size, config.tp_size)
