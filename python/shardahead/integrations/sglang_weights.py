"""What is called around SGLang's functions that read weights, while the plugin is in force.

Each takes SGLang's own function first, and passes on to it what is not Shardahead's: mounts of this
machine without --weight-loader-prefetch-checkpoints, loading without mmap, files that are named
twice. The same names, bytes and order come either way. Any thread; imports SGLang, so only where
that is.
"""

from __future__ import annotations

import copy
import inspect
import logging
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.model_loader import weight_utils

from shardahead import _core
from shardahead.checkpoint.shards import absolute_paths, resolve_shards
from shardahead.integrations import sglang_layers
from shardahead.integrations.learn_keys import keyed
from shardahead.integrations.passed_over import UNKNOWN, LoadedModel, LoadedModels
from shardahead.integrations.seams import is_turned_off
from shardahead.node.mounts import mounts_of
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import Options, is_prefetched_unasked
from shardahead.prefetch.start import prefetch_files
from shardahead.replica.beside_load import replicated_files
from shardahead.units import format_bytes
from shardahead.weights.iterators import MAX_WORKERS, weights_of
from shardahead.weights.safetensors_load import Load

if TYPE_CHECKING:
    Weights = Generator[tuple[str, torch.Tensor], None, None]

Function = Callable[..., Any]

_DEFAULT_THREADS = 4  # SGLang's; its default block is ours
_KNOWN = {
    "hf_weights_files",
    "max_workers",
    "disable_mmap",
    "prefetch",
    "prefetch_num_threads",
    "drop_cache_after_load",
}
_STATE = "sglang.srt.distributed.parallel_state"
_GROUPS = {
    "tp": "get_tp_group",
    "pp": "get_pp_group",
    "ep": "get_moe_ep_group",
    "attention tp": "get_attn_tp_group",
}
_MULTITHREAD_KEYS = {"enable_multithread_load", "num_threads"}

logger = logging.getLogger("shardahead")

# What SGLang has started ahead of its iterators, and holds; and for which files.
_started: weakref.WeakKeyDictionary[PrefetchHandle, frozenset[str]] = weakref.WeakKeyDictionary()
_models = LoadedModels(sglang_layers)
# The model, while its loader makes an iterator.
_model: ContextVar[LoadedModel] = ContextVar("shardahead_sglang_model", default=UNKNOWN)


def weights(original: Function, *args: Any, **kwargs: Any) -> Weights:
    """Around weight_utils.safetensors_weights_iterator."""
    bar = "Loading safetensors checkpoint shards"
    return _weights_or(original, args, kwargs, bar, _model.get())


def buffered_weights(original: Function, *args: Any, **kwargs: Any) -> Weights:
    """Around weight_utils.buffered_multi_thread_safetensors_weights_iterator."""
    return _weights_or(original, args, kwargs, "Multi-thread loading shards", _model.get())


def prefetch_all_checkpoints(original: Function, *args: Any, **kwargs: Any) -> Any:
    """Around weight_utils._prefetch_all_checkpoints: gives a handle with all that SGLang's has."""
    given = _bound(original, args, kwargs)
    files, num_threads = given["sorted_files"], given["num_threads"]
    if is_turned_off() or not files or num_threads < 1:
        return original(*args, **kwargs)
    try:
        handle = prefetch_files(replicated_files(files), options=_options(num_threads))
    except (OSError, ValueError) as error:  # advice: what is wrong with files, the load says
        logger.warning("SGLang's own prefetch is used: %s", error)
        return original(*args, **kwargs)
    _started[handle] = frozenset(absolute_paths(files))
    return handle


def all_weights_of_loader(original: Function, loader: Any, *args: Any, **kwargs: Any) -> Any:
    """Around DefaultModelLoader._get_all_weights and, for its startup overlap,
    commit_model_weights.
    """
    _models.note(loader, _bound(original, (loader, *args), kwargs)["model"])
    return original(loader, *args, **kwargs)


commit_of_loader = all_weights_of_loader


def weights_iterator_of_loader(original: Function, loader: Any, *args: Any, **kwargs: Any) -> Any:
    """Around DefaultModelLoader._get_weights_iterator, of one of a model's checkpoints."""
    source = _bound(original, (loader, *args), kwargs)["source"]
    token = _model.set(_models.at(loader, source))
    try:
        return _with_several_threads(original, loader, *args, **kwargs)
    finally:
        _model.reset(token)


def _with_several_threads(original: Function, loader: Any, *args: Any, **kwargs: Any) -> Any:
    """What beside a prefetch falls back to one thread unless it is told not to: SGLang's threads
    and its prefetch would read at the same time, Shardahead's iterators wait for what is on its
    way.
    """
    config = loader.load_config
    extra = config.model_loader_extra_config
    if is_turned_off() or not isinstance(extra, dict) or _MULTITHREAD_KEYS & extra.keys():
        return original(loader, *args, **kwargs)
    told = copy.copy(config)  # others look at it, too
    told.model_loader_extra_config = {**extra, "enable_multithread_load": True}
    loader.load_config = told
    try:
        return original(loader, *args, **kwargs)
    finally:
        loader.load_config = config


def _weights_or(
    original: Function,
    args: Any,
    kwargs: Any,
    description: str,
    model: LoadedModel,
) -> Weights:
    """As SGLang's own: nothing happens before the first tensor is asked for."""
    given = _bound(original, args, kwargs)
    files = given["hf_weights_files"]
    if not _takes(original, given, files):
        yield from original(*args, **kwargs)
        return
    try:
        load = _load(files, given, model)
    except (OSError, ValueError) as error:
        logger.warning("SGLang loads by itself: %s", error)
        yield from original(*args, **kwargs)
        return
    for early in _started_early(files):
        early.cancel()  # the load's own takes over, and knows where the consumer is
    total = sum(shard.size_bytes for shard in load.shards)
    logger.info("Shardahead loads %s in %d files", format_bytes(total), len(load.shards))
    max_workers = given.get("max_workers")
    workers = None if max_workers is None else max(1, min(max_workers, MAX_WORKERS))
    with (
        _bar(len(load.shards), description) as bar,
        closing(weights_of(load, workers, lambda: bar.update(1))) as loaded,
    ):
        yield from loaded


def _takes(original: Function, given: Mapping[str, Any], files: Sequence[str]) -> bool:
    """Whether these files are Shardahead's to load."""
    if is_turned_off() or given["disable_mmap"] or not files:
        return False
    parameters = inspect.signature(original).parameters
    if any(given[name] is not parameters[name].default for name in given.keys() - _KNOWN):
        return False  # something new is asked for
    try:
        shards = resolve_shards(list(files))
        if [shard.path for shard in shards] != absolute_paths(files):
            return False  # a file that is named twice, or an order of which ours is another
        if given["prefetch"] or _started_early(files):
            return True
        return is_prefetched_unasked(mount.mount_class for mount, _ in mounts_of(shards))
    except (OSError, ValueError, TypeError):
        return False  # SGLang says what is wrong with them


def _load(files: Sequence[str], given: Mapping[str, Any], model: LoadedModel) -> Load:
    options = _options(given["prefetch_num_threads"])
    return Load(
        list(files),
        options=keyed(options, "sglang", _STATE, _GROUPS, model.name),
        topology=(None, None),
        prefetch=True,
        names=None,
        drop_after=given["drop_cache_after_load"],
        progress=None,
        order="name",
        used_rows=model.used_rows,
    )


def _options(num_threads: int) -> Options:
    """SGLang's settings where they are not its defaults, else the variables SHARDAHEAD_*."""
    threads = None if num_threads == _DEFAULT_THREADS else min(num_threads, _core.MAX_THREADS)
    block_bytes: int = weight_utils._get_prefetch_block_size()
    least, most = _core.MIN_BLOCK_BYTES, _core.MAX_BLOCK_BYTES
    given = block_bytes != _core.DEFAULT_BLOCK_BYTES
    block_size = max(least, min(block_bytes, most)) if given else None
    return Options(threads=threads, block_size=block_size)


def _started_early(files: Sequence[str]) -> list[PrefetchHandle]:
    """What SGLang has started for these files."""
    wanted = set(absolute_paths(files))
    return [handle for handle, paths in _started.items() if wanted <= paths]


def _bound(function: Function, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _bar(shards: int, description: str) -> Any:
    """SGLang's own progress bar, in files."""
    distributed = torch.distributed.is_initialized()
    return weight_utils.tqdm(
        total=shards,
        desc=description,
        disable=distributed and torch.distributed.get_rank() != 0,
        bar_format=weight_utils.BAR_FORMAT,
        position=weight_utils.tqdm._get_free_pos(),
    )
