"""Which experts a rank of SGLang has not, as its own modules of experts say: those that its loading
passes over. Imports nothing of SGLang: what a model has, is imported. Any thread.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from shardahead.integrations.passed_over import loads_as

_EXPERTS = "sglang.srt.layers.moe.fused_moe_triton.layer"
_LOCATION = "sglang.srt.eplb.expert_location"


def absent_experts(name: str, module: Any) -> Iterable[str]:
    """The names of routed experts, as the checkpoint has them, of which the module `name` has none;
    none where it is no module of experts, or loads in a way of its own.
    """
    if not loads_as(module, _EXPERTS, "FusedMoE"):
        return ()
    location = None
    if getattr(module, "uses_expert_location", True):  # all of them, before there was a choice
        location = sys.modules[_LOCATION].get_global_expert_location_metadata()
    local = module._map_global_expert_id_to_local_expert_id
    if location is None:
        numbers = [e for e in range(module._num_global_routed) if local(e) == -1]
    else:
        places = location.logical_to_all_physical
        numbers = [
            expert
            for expert in range(location.num_logical_experts)
            if all(local(place) == -1 for place in places(module.layer_id, expert))
        ]
    return [f"{name}.{number}" for number in numbers]
