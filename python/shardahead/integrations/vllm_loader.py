"""vLLM's --load-format shardahead: its default loader, reading through Shardahead. Imports vLLM."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from shardahead.integrations.vllm_options import split_extra_config
from shardahead.integrations.vllm_weights import asking

if TYPE_CHECKING:
    from collections.abc import Generator

    import torch


class ShardaheadModelLoader(DefaultModelLoader):  # type: ignore[misc, unused-ignore]
    """Finds, filters and assigns weights as vLLM's default loader does with load format "auto", and
    reads those of safetensors files through Shardahead, whatever the filesystem.

    Options come as --model-loader-extra-config: vllm_options.py. Raises ValueError or TypeError for
    those that are none.
    """

    def __init__(self, load_config: Any) -> None:
        asked, extra = split_extra_config(load_config.model_loader_extra_config)
        config = copy.copy(load_config)  # others look at it, too
        config.load_format = "auto"
        config.model_loader_extra_config = extra
        if config.safetensors_load_strategy == "prefetch":
            # That is the format's own. vLLM's loader refuses it together with several threads.
            config.safetensors_load_strategy = None
        super().__init__(config)
        self._asked = asked

    def _get_weights_iterator(self, source: Any) -> Generator[tuple[str, torch.Tensor], None, None]:
        with asking(self._asked.of_experts(self.local_expert_ids)):
            weights: Generator[tuple[str, torch.Tensor], None, None]
            weights = super()._get_weights_iterator(source)
        return weights
