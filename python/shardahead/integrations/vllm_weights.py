"""vLLM's functions that read weights, as they are while the plugin is in force.

Each is made from vLLM's own, takes the same arguments, and passes on to it what is not
Shardahead's: local disks, strategies other than "prefetch", files that are named twice. The same
names, bytes and order come either way. Any thread; imports vLLM, so only where that is.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from vllm.config import get_current_vllm_config_or_none
from vllm.model_executor.model_loader import weight_utils
from vllm.model_executor.model_loader.weight_utils import should_skip_weight

from shardahead import _core
from shardahead.checkpoint.shards import absolute_paths, resolve_shards
from shardahead.integrations import vllm_layers
from shardahead.integrations.learn_keys import keyed
from shardahead.integrations.passed_over import LoadedModels
from shardahead.integrations.seams import is_turned_off
from shardahead.integrations.vllm_options import NOTHING_ASKED, Asked, wants_prefetch, within
from shardahead.node.mounts import mounts_of
from shardahead.prefetch.beside_loader import prefetching
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import Options
from shardahead.prefetch.start import prefetch_files
from shardahead.replica.beside_load import replicated_files
from shardahead.units import format_bytes
from shardahead.weights.iterators import MAX_WORKERS, weights_of
from shardahead.weights.safetensors_load import Load

if TYPE_CHECKING:
    import torch

    Weights = Generator[tuple[str, torch.Tensor], None, None]

Function = Callable[..., Any]

_KNOWN = {
    "hf_weights_files",
    "use_tqdm_on_load",
    "safetensors_load_strategy",
    "local_expert_ids",
    "safetensors_prefetch_num_threads",
    "safetensors_prefetch_block_size",
    "max_workers",
    "pt_load_map_location",
}

_STATE = "vllm.distributed.parallel_state"
_GROUPS = {
    "tp": "get_tp_group",
    "pp": "get_pp_group",
    "ep": "get_ep_group",
    "dp": "get_dp_group",
}

logger = logging.getLogger("shardahead")

_asked: ContextVar[Asked] = ContextVar("shardahead_vllm_asked", default=NOTHING_ASKED)
_running: list[PrefetchHandle] = []  # vLLM drops what its prefetch returns
_models = LoadedModels(vllm_layers)


@contextmanager
def asking(asked: Asked) -> Iterator[None]:
    """Calls of vLLM's functions within are for a load that was asked for like this."""
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def safetensors_weights(original: Function) -> Function:
    """In place of weight_utils.safetensors_weights_iterator."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def safetensors_weights_iterator(*args: Any, **kwargs: Any) -> Weights:
        own = functools.partial(original, *args, **kwargs)
        given, asked = _bound(signature, args, kwargs), _asked.get()
        if not _takes(signature, given, given["safetensors_load_strategy"], asked):
            return own()  # type: ignore[no-any-return]
        return _weights(
            given["hf_weights_files"],
            asked.of_experts(given["local_expert_ids"]),
            functools.partial(
                _options,
                asked,
                signature,
                given,
                threads="safetensors_prefetch_num_threads",
                block_size="safetensors_prefetch_block_size",
            ),
            order="name",
            max_workers=asked.max_workers,
            bar=_bar(given["use_tqdm_on_load"], "Loading safetensors checkpoint shards"),
            own=own,
        )

    return safetensors_weights_iterator


def multi_thread_safetensors_weights(original: Function) -> Function:
    """In place of weight_utils.multi_thread_safetensors_weights_iterator, whose files come in the
    order in which they are done; here in that of their names."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def multi_thread_safetensors_weights_iterator(*args: Any, **kwargs: Any) -> Weights:
        own = functools.partial(original, *args, **kwargs)
        given, asked = _bound(signature, args, kwargs), _asked.get()
        if not _takes(signature, given, _strategy(), asked):
            return own()  # type: ignore[no-any-return]
        return _weights(
            given["hf_weights_files"],
            asked,
            asked.options_with,
            order="offset",
            max_workers=asked.max_workers or min(given["max_workers"], MAX_WORKERS),
            bar=_bar(given["use_tqdm_on_load"], "Multi-thread loading shards"),
            own=own,
        )

    return multi_thread_safetensors_weights_iterator


def pt_weights(original: Function) -> Function:
    """In place of weight_utils.pt_weights_iterator and multi_thread_pt_weights_iterator: each
    itself, beside a prefetch."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def weights_iterator(*args: Any, **kwargs: Any) -> Weights:
        given, asked = _bound(signature, args, kwargs), _asked.get()
        if not _takes(signature, given, _strategy(), asked):
            return original(*args, **kwargs)  # type: ignore[no-any-return]
        files = _replicated(given["hf_weights_files"])
        return _beside(files, asked, original(**{**given, "hf_weights_files": files}))

    return weights_iterator


multi_thread_pt_weights = pt_weights


def all_weights_of_loader(original: Function) -> Function:
    """In place of DefaultModelLoader.get_all_weights."""

    @functools.wraps(original)
    def get_all_weights(self: Any, model_config: Any, model: Any) -> Weights:
        _models.note(self, model)
        return original(self, model_config, model)  # type: ignore[no-any-return]

    return get_all_weights


def weights_iterator_of_loader(original: Function) -> Function:
    """In place of DefaultModelLoader._get_weights_iterator, of one of a model's checkpoints."""

    @functools.wraps(original)
    def _get_weights_iterator(self: Any, source: Any) -> Weights:
        with asking(_asked.get().by(_models.at(self, source))):
            return original(self, source)  # type: ignore[no-any-return]

    return _get_weights_iterator


def prefetch_all_checkpoints(original: Function) -> Function:
    """In place of weight_utils._prefetch_all_checkpoints. Gives a handle, which vLLM drops."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def _prefetch_all_checkpoints(*args: Any, **kwargs: Any) -> PrefetchHandle | None:
        given = _bound(signature, args, kwargs)
        files = given["sorted_files"]
        counts = (given["num_prefetch_threads"], given["block_size"])
        if is_turned_off() or not files or min(counts) < 1:  # vLLM says which is too small
            return original(*args, **kwargs)  # type: ignore[no-any-return]
        try:
            options = _options(
                NOTHING_ASKED, signature, given, "num_prefetch_threads", "block_size"
            )
            handle = prefetch_files(replicated_files(files), options=options)
        except (OSError, ValueError) as error:  # advice: what is wrong with files, the load says
            logger.warning("vLLM's own prefetch is used: %s", error)
            return original(*args, **kwargs)  # type: ignore[no-any-return]
        _running[:] = [*(other for other in _running if not other.done), handle]
        return handle

    return _prefetch_all_checkpoints


def _weights(
    files: Sequence[str],
    asked: Asked,
    options: Callable[[], Options],
    *,
    order: str,
    max_workers: int | None,
    bar: Callable[[int], Any],
    own: Callable[[], Weights],
) -> Weights:
    """As vLLM's own: nothing happens before the first tensor is asked for."""
    ids = asked.local_expert_ids
    try:
        load = Load(
            list(files),
            options=_keyed(options(), asked),
            topology=(None, None),
            prefetch=True,
            names=None if ids is None else lambda name: not should_skip_weight(name, ids),
            drop_after=asked.drop_after,
            progress=None,
            order=order,
            used_rows=asked.model.used_rows,
        )
    except (OSError, ValueError) as error:
        logger.warning("vLLM loads by itself: %s", error)
        yield from own()
        return
    total = sum(shard.size_bytes for shard in load.shards)
    logger.info("Shardahead loads %s in %d files", format_bytes(total), len(load.shards))
    with (
        bar(len(load.shards)) as shown,
        closing(weights_of(load, max_workers, lambda: shown.update(1))) as weights,
    ):
        yield from weights


def _beside(files: Sequence[str], asked: Asked, weights: Weights) -> Weights:
    with closing(weights), ExitStack() as beside:
        try:
            beside.enter_context(prefetching(list(files), options=_keyed(asked.options, asked)))
        except (OSError, ValueError) as error:
            logger.warning("vLLM loads by itself: %s", error)
        yield from weights


def _replicated(files: Sequence[str]) -> list[str]:
    try:
        return replicated_files(files)
    except (OSError, ValueError):  # what is wrong with them, the load says
        return list(files)


def _takes(
    signature: inspect.Signature, given: Mapping[str, Any], strategy: str | None, asked: Asked
) -> bool:
    """Whether these files are Shardahead's to load."""
    files = given["hf_weights_files"]
    if is_turned_off() or not files:
        return False
    if any(given[name] is not signature.parameters[name].default for name in given.keys() - _KNOWN):
        return False  # something new is asked for
    try:
        shards = resolve_shards(list(files))
        mount_classes = [mount.mount_class for mount, _ in mounts_of(shards)]
    except (OSError, ValueError, TypeError):
        return False  # vLLM says what is wrong with them
    in_vllms_order = sorted(files, key=weight_utils._natural_sort_key)
    if [shard.path for shard in shards] != absolute_paths(in_vllms_order):
        return False  # a file that is named twice, or an order of which ours is another
    return wants_prefetch(strategy, asked, mount_classes)


def _keyed(options: Options, asked: Asked) -> Options:
    return keyed(options, "vllm", _STATE, _GROUPS, asked.model.name)


def _strategy() -> str | None:
    """--safetensors-load-strategy, for functions that vLLM does not tell it."""
    config = get_current_vllm_config_or_none()
    strategy: str | None = config.load_config.safetensors_load_strategy if config else None
    return strategy


def _options(
    asked: Asked, signature: inspect.Signature, given: dict[str, Any], threads: str, block_size: str
) -> Options:
    def setting(name: str, least: int, most: int) -> int | None:
        return within(given[name], signature.parameters[name].default, least, most)

    return asked.options_with(
        threads=setting(threads, 1, _core.MAX_THREADS),
        block_size=setting(block_size, _core.MIN_BLOCK_BYTES, _core.MAX_BLOCK_BYTES),
    )


def _bound(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _bar(use_tqdm_on_load: bool, description: str) -> Callable[[int], Any]:
    """vLLM's own progress bar, in files."""
    return lambda total: weight_utils.tqdm(
        total=total,
        desc=description,
        disable=not weight_utils.enable_tqdm(use_tqdm_on_load),
        bar_format=weight_utils._BAR_FORMAT,
    )
