"""vLLM's functions that read weights, as they are while the plugin is in force.

Each is made from vLLM's own, takes the same arguments, and passes on to it what is not
Shardahead's: local disks, strategies other than "prefetch", files that are named twice. The same
names, bytes and order come either way. Any thread; imports vLLM, so only where that is.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from vllm.config import get_current_vllm_config_or_none
from vllm.model_executor.model_loader import weight_utils

from shardahead import _core
from shardahead.beside import prefetching
from shardahead.integrations.vllm_options import NOTHING_ASKED, Asked, wants_prefetch, within
from shardahead.load import Load
from shardahead.mounts import mount_of
from shardahead.policy import PrefetchOptions, is_disabled
from shardahead.prefetch import PrefetchHandle, prefetch_files
from shardahead.shards import resolve_shards
from shardahead.units import format_bytes
from shardahead.weights import weights_of

if TYPE_CHECKING:
    import torch

    Weights = Generator[tuple[str, torch.Tensor], None, None]

Function = Callable[..., Any]

logger = logging.getLogger("shardahead")

_asked: ContextVar[Asked] = ContextVar("shardahead_vllm_asked", default=NOTHING_ASKED)
_running: list[PrefetchHandle] = []  # vLLM drops what its prefetch returns


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
        given = _bound(signature, args, kwargs)
        files, asked = given["hf_weights_files"], _asked.get()
        if not _takes(files, given["safetensors_load_strategy"], asked):
            return original(*args, **kwargs)  # type: ignore[no-any-return]
        return _weights(
            files,
            asked.of_experts(given["local_expert_ids"]),
            _resolved(
                asked,
                signature,
                given,
                threads="safetensors_prefetch_num_threads",
                block_size="safetensors_prefetch_block_size",
            ),
            order="name",
            max_workers=asked.max_workers,
            bar=_bar(given["use_tqdm_on_load"], "Loading safetensors checkpoint shards"),
        )

    return safetensors_weights_iterator


def multi_thread_safetensors_weights(original: Function) -> Function:
    """In place of weight_utils.multi_thread_safetensors_weights_iterator, whose files come in the
    order in which they are done; here in that of their names."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def multi_thread_safetensors_weights_iterator(*args: Any, **kwargs: Any) -> Weights:
        given = _bound(signature, args, kwargs)
        files, asked = given["hf_weights_files"], _asked.get()
        if not _takes(files, _strategy(), asked):
            return original(*args, **kwargs)  # type: ignore[no-any-return]
        return _weights(
            files,
            asked,
            asked.resolved(),
            order="offset",
            max_workers=asked.max_workers or given["max_workers"],
            bar=_bar(given["use_tqdm_on_load"], "Multi-thread loading shards"),
        )

    return multi_thread_safetensors_weights_iterator


def pt_weights(original: Function) -> Function:
    """In place of weight_utils.pt_weights_iterator and multi_thread_pt_weights_iterator: each
    itself, beside a prefetch."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def weights_iterator(*args: Any, **kwargs: Any) -> Weights:
        files, asked = _bound(signature, args, kwargs)["hf_weights_files"], _asked.get()
        weights = original(*args, **kwargs)
        if not _takes(files, _strategy(), asked):
            return weights  # type: ignore[no-any-return]
        return _beside(files, asked, weights)

    return weights_iterator


multi_thread_pt_weights = pt_weights


def prefetch_all_checkpoints(original: Function) -> Function:
    """In place of weight_utils._prefetch_all_checkpoints. Gives a handle, which vLLM drops."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def _prefetch_all_checkpoints(*args: Any, **kwargs: Any) -> PrefetchHandle | None:
        given = _bound(signature, args, kwargs)
        files = given["sorted_files"]
        if is_disabled() or not files:
            return original(*args, **kwargs)  # type: ignore[no-any-return]
        for name in ("num_prefetch_threads", "block_size"):
            if given[name] < 1:
                raise ValueError(f"{name} must be at least 1, not {given[name]}")
        options = _resolved(
            _asked.get(), signature, given, threads="num_prefetch_threads", block_size="block_size"
        )
        try:
            handle = prefetch_files(files, threads=options.threads, block_size=options.block_bytes)
        except OSError as error:  # advice: the load itself says what is wrong with its files
            logger.warning("no prefetch: %s", error)
            return None
        _running[:] = [*(other for other in _running if not other.done), handle]
        return handle

    return _prefetch_all_checkpoints


def _weights(
    files: Sequence[str],
    asked: Asked,
    options: PrefetchOptions,
    *,
    order: str,
    max_workers: int | None,
    bar: Callable[[int], Any],
) -> Weights:
    """As vLLM's own: nothing happens before the first tensor is asked for."""
    ids = asked.local_expert_ids
    load = Load(
        list(files),
        options=options,
        topology=(None, None),
        prefetch=True,
        names=None if ids is None else lambda name: not weight_utils.should_skip_weight(name, ids),
        mode=asked.mode,
        drop_after=asked.drop_after,
        progress=None,
        order=order,
    )
    total = sum(shard.size_bytes for shard in load.shards)
    logger.info("Shardahead loads %s in %d files", format_bytes(total), len(load.shards))
    with (
        bar(len(load.shards)) as shown,
        closing(weights_of(load, max_workers, lambda: shown.update(1))) as weights,
    ):
        yield from weights


def _beside(files: Sequence[str], asked: Asked, weights: Weights) -> Weights:
    with closing(weights), prefetching(list(files), **asked.options):
        yield from weights


def _takes(files: Sequence[str], strategy: str | None, asked: Asked) -> bool:
    """Whether these files are Shardahead's to load."""
    if is_disabled() or not files:
        return False
    try:
        mount_class = mount_of(files[0]).mount_class
        shards = [shard.path for shard in resolve_shards(list(files))]
    except (OSError, ValueError):
        return False  # vLLM says what is wrong with them
    if shards != sorted(files, key=weight_utils._natural_sort_key):
        return False  # a file that is named twice, or names of which vLLM's order is another
    return wants_prefetch(strategy, asked, mount_class)


def _strategy() -> str | None:
    """--safetensors-load-strategy, for functions that vLLM does not tell it."""
    config = get_current_vllm_config_or_none()
    strategy: str | None = config.load_config.safetensors_load_strategy if config else None
    return strategy


def _resolved(
    asked: Asked, signature: inspect.Signature, given: dict[str, Any], threads: str, block_size: str
) -> PrefetchOptions:
    def setting(name: str, least: int, most: int) -> int | None:
        return within(given[name], signature.parameters[name].default, least, most)

    return asked.resolved(
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
