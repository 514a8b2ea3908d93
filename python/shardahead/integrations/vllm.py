"""The vLLM plugin: entry point `shardahead` of the group vllm.general_plugins.

Registers --load-format shardahead and, unless SHARDAHEAD_DISABLE=1, puts Shardahead in the place of
the functions with which vLLM reads weights (vllm_weights.py), wherever vLLM has imported them: once
it has imported its loaders, which not all of its processes do. May be called any number of times in
a process. Where vLLM is not as expected nothing is changed, and one warning says so.
"""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any

from shardahead.integrations.after_import import AfterImport
from shardahead.integrations.seams import Seam, decline, is_turned_off, missing

LOAD_FORMAT = "shardahead"
TESTED = "0.32.0 and 0.33.0"

_LOADERS = "vllm.model_executor.model_loader"
_UTILS = f"{_LOADERS}.weight_utils"
_PT = ("hf_weights_files", "use_tqdm_on_load", "pt_load_map_location")
#: What is replaced, by the name of the function in vllm_weights that makes the replacement.
_REPLACED = {
    "safetensors_weights": Seam(
        _UTILS,
        "safetensors_weights_iterator",
        (
            "hf_weights_files",
            "use_tqdm_on_load",
            "safetensors_load_strategy",
            "local_expert_ids",
            "safetensors_prefetch_num_threads",
            "safetensors_prefetch_block_size",
        ),
    ),
    "multi_thread_safetensors_weights": Seam(
        _UTILS,
        "multi_thread_safetensors_weights_iterator",
        ("hf_weights_files", "use_tqdm_on_load", "max_workers"),
    ),
    "pt_weights": Seam(_UTILS, "pt_weights_iterator", _PT),
    "multi_thread_pt_weights": Seam(_UTILS, "multi_thread_pt_weights_iterator", _PT),
    "prefetch_all_checkpoints": Seam(
        _UTILS,
        "_prefetch_all_checkpoints",
        ("sorted_files", "num_prefetch_threads", "block_size"),
    ),
}
_LOADER = f"{_LOADERS}.default_loader"
#: Methods that are replaced as well, by which the model is known. Without them it is not.
_METHODS = {
    "all_weights_of_loader": Seam(
        _LOADER, "DefaultModelLoader.get_all_weights", ("self", "model_config", "model")
    ),
    "weights_iterator_of_loader": Seam(
        _LOADER, "DefaultModelLoader._get_weights_iterator", ("self", "source")
    ),
}
#: What is used besides.
_USED = (
    Seam(_UTILS, "enable_tqdm", ("use_tqdm_on_load",)),
    Seam(_UTILS, "should_skip_weight", ("weight_name", "local_expert_ids")),
    Seam(_UTILS, "_natural_sort_key", ("filepath",)),
    Seam(_UTILS, "_BAR_FORMAT"),
    Seam(_UTILS, "tqdm"),
    Seam("vllm.config", "get_current_vllm_config_or_none", ()),
    Seam(_LOADERS, "register_model_loader", ("load_format",)),
    Seam(_LOADERS, "_LOAD_FORMAT_TO_MODEL_LOADER"),
    _METHODS["weights_iterator_of_loader"],
)

logger = logging.getLogger("shardahead")

_replacements: list[tuple[Any, str, Any]] = []  # module or class, name, what was there


def register() -> None:
    """The plugin."""
    _log_as_vllm_does()
    try:
        _after_import.begin()
    except ImportError:
        _hold_on()  # says what is missing


def unregister() -> None:
    """Puts vLLM's own functions back. The load format stays, and reads as vLLM does."""
    _after_import.cancel()
    while _replacements:
        place, name, original = _replacements.pop()
        setattr(place, name, original)


def _hold_on() -> None:
    """Raises nothing: it runs within an import of vLLM's own."""
    try:
        reason = missing((*_REPLACED.values(), *_USED))
        if reason is not None:
            decline("vllm", reason, TESTED)
            return
        _register_load_format()
        if not is_turned_off():
            _replace_functions()
    except Exception as error:
        decline("vllm", repr(error), TESTED)


_after_import = AfterImport(_LOADERS, _hold_on)


def _register_load_format() -> None:
    from vllm.model_executor import model_loader

    from shardahead.integrations.vllm_loader import ShardaheadModelLoader

    # vLLM warns where a format is registered twice.
    if model_loader._LOAD_FORMAT_TO_MODEL_LOADER.get(LOAD_FORMAT) is not ShardaheadModelLoader:
        model_loader.register_model_loader(LOAD_FORMAT)(ShardaheadModelLoader)


def _replace_functions() -> None:
    from shardahead.integrations import vllm_weights

    if _replacements:
        return
    for maker, seam in _REPLACED.items():
        original = seam.find()
        replacement = getattr(vllm_weights, maker)(original)
        for module, name in _places(original):
            _replace(module, name, original, replacement)
    if missing(_METHODS.values()) is None:
        for maker, seam in _METHODS.items():
            original = seam.find()
            owner, _, name = seam.name.rpartition(".")
            replacement = getattr(vllm_weights, maker)(original)
            _replace(Seam(seam.module, owner).find(), name, original, replacement)


def _replace(place: Any, name: str, original: Any, replacement: Any) -> None:
    _replacements.append((place, name, original))
    setattr(place, name, replacement)


def _places(function: Any) -> list[tuple[ModuleType, str]]:
    """Wherever vLLM has this function: in its module, and where it was imported from there."""
    return [
        (module, name)
        for package, module in list(sys.modules.items())
        if package.startswith("vllm.") and isinstance(module, ModuleType)
        for name, value in list(vars(module).items())
        if value is function
    ]


class _ToVllm(logging.Handler):
    """Hands our records to vLLM's logger, which is set up after the plugins are loaded."""

    def emit(self, record: logging.LogRecord) -> None:
        vllm = logging.getLogger("vllm")
        if vllm.isEnabledFor(record.levelno):
            vllm.handle(record)


def _log_as_vllm_does() -> None:
    """What we log appears as vLLM's own does, unless the application has said where it goes."""
    if logger.handlers:
        return
    logger.addHandler(_ToVllm())
    logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
