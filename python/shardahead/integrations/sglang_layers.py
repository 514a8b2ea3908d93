"""Which experts a rank of SGLang has not, and which rows of matrices it reads, as its own modules
say: its loading passes over the rest. Imports nothing of SGLang: what a model has, is imported.
Any thread.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from shardahead.integrations.passed_over import Experts, Rows, loads_as
from shardahead.integrations.row_shares import Layers, share

_EXPERTS = "sglang.srt.layers.moe.fused_moe_triton.layer"
_LOCATION = "sglang.srt.eplb.expert_location"
_LINEAR = "sglang.srt.layers.linear"
# The matrices of an expert that are cut by rows, as checkpoints call them.
_CUT_BY_ROWS: tuple[str, ...] = ("w1", "w3", "gate_proj", "up_proj")


def experts(name: str, module: Any) -> Experts | None:
    """The routed experts of the module `name`; None where it is no module of experts, or loads in a
    way of its own.
    """
    if not loads_as(module, _EXPERTS, "FusedMoE"):
        return None
    location = None
    if getattr(module, "uses_expert_location", True):  # all of them, before there was a choice
        location = sys.modules[_LOCATION].get_global_expert_location_metadata()
    local = module._map_global_expert_id_to_local_expert_id
    if location is None:
        count = module._num_global_routed
        absent = [number for number in range(count) if local(number) == -1]
    else:
        count = location.num_logical_experts
        places = location.logical_to_all_physical
        absent = [
            expert
            for expert in range(count)
            if all(local(place) == -1 for place in places(module.layer_id, expert))
        ]
    part = _rows_of_one(module)
    rows = {} if part is None else dict.fromkeys(_CUT_BY_ROWS, part)
    return Experts(name, [str(number) for number in absent], count, rows)


def rows(name: str, module: Any) -> Iterator[tuple[str, Rows]]:
    """See Layers.rows()."""
    return _LAYERS.rows(name, module)


def _rows_of_one(module: Any) -> Rows | None:
    """Of a matrix of one expert; None where a rank has all of it, or it is stored otherwise."""
    ranks = getattr(module, "moe_tp_size", 1)
    weight = getattr(module, "w13_weight", None)
    stored = weight is not None and not getattr(weight, "is_transposed", False)
    if ranks < 2 or not stored or getattr(module, "use_presharded_weights", False):
        return None
    wide = ranks * module.intermediate_size_per_partition
    return share(module.moe_tp_rank, ranks, wide, ranks)


def _place_of(module: Any) -> tuple[int, int]:
    rank, ranks = sys.modules[_LINEAR].get_group_rank_size(module.tp_group)
    return rank, ranks


_LAYERS = Layers(_LINEAR, "sglang.srt.layers.vocab_parallel_embedding", _place_of)
