"""The SGLang plugin: entry point `shardahead` of the group sglang.srt.plugins.

Registers hooks on the functions with which SGLang reads safetensors files (sglang_weights.py);
SGLang itself puts them wherever these have been imported. May be called any number of times in a
process. With SHARDAHEAD_DISABLE=1 nothing is changed, and neither where SGLang is not as expected,
which one warning then says.
"""

from __future__ import annotations

from shardahead.integrations.seams import Seam, decline, is_turned_off, missing

TESTED = "0.5.22 and 0.5.23"

_UTILS = "sglang.srt.model_loader.weight_utils"
_LOADER = "sglang.srt.model_loader.loader"
_REGISTRY = "sglang.srt.plugins.hook_registry"
_ITERATOR = (
    "hf_weights_files",
    "disable_mmap",
    "prefetch",
    "prefetch_num_threads",
    "drop_cache_after_load",
)
#: What is hooked, by the name of the function in sglang_weights that is called around it.
_HOOKED = {
    "weights": Seam(_UTILS, "safetensors_weights_iterator", _ITERATOR),
    "buffered_weights": Seam(
        _UTILS,
        "buffered_multi_thread_safetensors_weights_iterator",
        (*_ITERATOR, "max_workers"),
    ),
    "prefetch_all_checkpoints": Seam(
        _UTILS, "_prefetch_all_checkpoints", ("sorted_files", "num_threads")
    ),
    "weights_iterator_of_loader": Seam(
        _LOADER, "DefaultModelLoader._get_weights_iterator", ("self", "source")
    ),
}
#: Hooked as well, where they are there: by them the model is known.
_HOOKED_IF_THERE = {
    "all_weights_of_loader": Seam(
        _LOADER, "DefaultModelLoader._get_all_weights", ("self", "model_config", "model")
    ),
    "commit_of_loader": Seam(
        _LOADER, "DefaultModelLoader.commit_model_weights", ("self", "model", "resolved_sources")
    ),
}
#: What is used besides.
_USED = (
    Seam(_UTILS, "_get_prefetch_block_size", ()),
    Seam(_UTILS, "tqdm"),
    Seam(_UTILS, "BAR_FORMAT"),
    Seam(_REGISTRY, "HookRegistry.register", ("target", "hook", "hook_type")),
    Seam(_REGISTRY, "HookType.AROUND"),
)

_registered = False


def register() -> None:
    """The plugin."""
    global _registered
    if _registered or is_turned_off():
        return
    reason = missing((*_HOOKED.values(), *_USED))
    if reason is not None:
        decline("sglang", reason, TESTED)
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    from shardahead.integrations import sglang_weights

    there = {n: seam for n, seam in _HOOKED_IF_THERE.items() if missing([seam]) is None}
    for name, seam in {**_HOOKED, **there}.items():
        target = f"{seam.module}.{seam.name}"
        HookRegistry.register(target, getattr(sglang_weights, name), HookType.AROUND)
    _registered = True
