"""Which experts a rank of vLLM has not, as its own modules of experts say: those that its loading
passes over, with --enable-ep-weight-filter or without. Imports nothing of vLLM: what a model has,
is imported. Any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from shardahead.integrations.passed_over import loads_as

_EXPERTS = "vllm.model_executor.layers.fused_moe.routed_experts"
# The module that has the weights is a part of the one that the checkpoint knows.
_PART = ".routed_experts"
# "experts.7.up_proj.", as the checkpoint has it behind the name of that one.
_NUMBERED = re.compile(r"\bexperts\.((?:base_layer\.)?[0-9]+)\.")


def absent_experts(name: str, module: Any) -> Iterable[str]:
    """The names of routed experts, as the checkpoint has them, of which the module `name` has none;
    none where it is no module of experts, or loads in a way of its own.
    """
    if not loads_as(module, _EXPERTS, "RoutedExperts"):
        return ()
    places: dict[str, set[int]] = {}  # in the order of physical experts, some more than once
    for _, named, place, _ in module.get_expert_mapping():
        found = _NUMBERED.search(named)
        if found is not None:
            places.setdefault(found[1], set()).add(place)
    local = module._map_global_expert_id_to_local_expert_id
    here = {place for place in set().union(*places.values()) if local(place) != -1}
    whole = name.removesuffix(_PART)
    return [f"{whole}.{expert}" for expert, at in places.items() if at.isdisjoint(here)]
