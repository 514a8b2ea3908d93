"""The released serving engines' own weight iterators: with their own prefetch, unchanged, and with
Shardahead's plugin loaded as they load plugins.

Each runs in its own environment. The process group that they ask for the rank is made before the
clock starts, over gloo; no collective runs during the load.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from methods import Place, Start
from sglang_on_cpu import pass_over_torchvision


def sglang(place: Place) -> Start:
    """sglang.srt.model_loader.weight_utils.safetensors_weights_iterator(FILES, prefetch=True)."""
    weight_utils = _sglang_utils(place)
    files = place.job.files
    return lambda: place.cut(weight_utils.safetensors_weights_iterator(files, prefetch=True))


def sglang_plugin(place: Place) -> Start:
    """The iterator that DefaultModelLoader chooses with the plugin: that of several threads, as
    many as by default. Shardahead must be in SGLang's environment: make engines."""
    import shardahead.integrations.sglang  # noqa: F401

    weight_utils = _sglang_utils(place)
    from sglang.srt.model_loader.loader import DefaultModelLoader
    from sglang.srt.plugins import load_plugins

    load_plugins()
    load, files = weight_utils.buffered_multi_thread_safetensors_weights_iterator, place.job.files
    workers = DefaultModelLoader.DEFAULT_NUM_THREADS
    return lambda: place.cut(load(files, workers, prefetch=True))


def _sglang_utils(place: Place) -> Any:
    """Its module of weight iterators, with its world group made."""
    pass_over_torchvision()
    # What it takes for the local size; torchrun's LOCAL_WORLD_SIZE it does not read.
    os.environ["LOCAL_SIZE"] = str(place.size)
    from sglang.srt.distributed import parallel_state
    from sglang.srt.model_loader import weight_utils

    if place.size:
        parallel_state.init_distributed_environment(
            world_size=place.size,
            rank=place.rank,
            distributed_init_method="env://",
            local_rank=place.rank,
            backend="gloo",
        )
    return weight_utils


def vllm(place: Place) -> Start:
    """vllm...weight_utils.safetensors_weights_iterator as DefaultModelLoader calls it with
    --safetensors-load-strategy=prefetch. By default it prefetches on NFS and Lustre only."""
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import weight_utils

    join_gloo(place)
    config = LoadConfig(safetensors_load_strategy="prefetch", use_tqdm_on_load=False)
    return lambda: place.cut(
        weight_utils.safetensors_weights_iterator(
            place.job.files,
            config.use_tqdm_on_load,
            config.safetensors_load_strategy,
            local_expert_ids=None,
            safetensors_prefetch_num_threads=config.safetensors_prefetch_num_threads,
            safetensors_prefetch_block_size=config.safetensors_prefetch_block_size,
        )
    )


def vllm_plugin(place: Place) -> Start:
    """The same call, after vLLM has loaded the plugin that is installed with Shardahead."""
    from vllm.plugins import load_general_plugins

    import shardahead.integrations.vllm  # noqa: F401 - else it would be vLLM alone, and not say so

    load_general_plugins()
    return vllm(place)


def join_gloo(place: Place) -> None:
    """The process group of all ranks; nothing where a method is only asked whether it is there."""
    if place.size:
        torch.distributed.init_process_group("gloo", rank=place.rank, world_size=place.size)
