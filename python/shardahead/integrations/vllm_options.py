"""What a load in vLLM is asked for: --model-loader-extra-config, and vLLM's own settings. Pure.

Checked before any thread starts; the engine is not needed here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shardahead.integrations.passed_over import UNKNOWN, LoadedModel
from shardahead.prefetch.options import (
    OPTION_NAMES,
    Options,
    is_prefetched_unasked,
    resolve_mode,
    resolve_options,
)
from shardahead.weights.iterators import check_max_workers

#: Keys of vLLM's own default loader: they stay its business.
VLLM_KEYS = ("enable_multithread_load", "num_threads", "enable_weights_track")
#: Those of `Options`, and of the weight iterators, with their meaning there.
OUR_KEYS = (*OPTION_NAMES, "drop_after", "max_workers")


@dataclass(frozen=True)
class Asked:
    """One load, as it was asked for.

    `by_format`: --load-format shardahead, which prefetches on every filesystem and always leaves
    out the experts that are not of `local_expert_ids`. `model`: which is loaded, where it is known.
    """

    options: Options
    drop_after: bool = False
    max_workers: int | None = None
    by_format: bool = False
    local_expert_ids: Collection[int] | None = None
    model: LoadedModel = UNKNOWN

    def options_with(self, threads: int | None = None, block_size: int | None = None) -> Options:
        """The options, with `threads` and `block_size` where none were asked for."""
        asked = self.options
        return replace(
            asked,
            threads=threads if asked.threads is None else asked.threads,
            block_size=block_size if asked.block_size is None else asked.block_size,
        )

    def of_experts(self, local_expert_ids: Collection[int] | None) -> Asked:
        return replace(self, local_expert_ids=local_expert_ids)

    def by(self, model: LoadedModel) -> Asked:
        return replace(self, model=model)


NOTHING_ASKED = Asked(Options())


def split_extra_config(extra: Mapping[str, Any]) -> tuple[Asked, dict[str, Any]]:
    """What of --model-loader-extra-config is ours, checked, and what is vLLM's.

    Sizes are in bytes, or a text with a unit: "16MiB". Raises ValueError for a key that is
    neither's, and ValueError or TypeError for a value of ours that is none.
    """
    if not isinstance(extra, Mapping):
        raise ValueError(
            "model_loader_extra_config must be a dict for load format shardahead, not "
            f"{type(extra).__name__}"
        )
    unknown = sorted(set(extra) - set(OUR_KEYS) - set(VLLM_KEYS))
    if unknown:
        raise ValueError(
            f"model_loader_extra_config has no key {', '.join(map(repr, unknown))} for load format "
            f"shardahead; it has {', '.join(OUR_KEYS)}, and vLLM's own {', '.join(VLLM_KEYS)}"
        )
    given = {key: value for key, value in extra.items() if key in OUR_KEYS}
    drop_after = given.get("drop_after", False)
    if not isinstance(drop_after, bool):
        raise TypeError(f"drop_after must be true or false, not {drop_after!r}")
    max_workers = given.get("max_workers")
    if max_workers is not None:
        check_max_workers(max_workers)
    asked = Asked(
        options=Options(**{key: given[key] for key in OPTION_NAMES if key in given}),
        drop_after=drop_after,
        max_workers=max_workers,
        by_format=True,
    )
    resolve_options(asked.options)  # the variables, too, are judged before anything starts
    resolve_mode(asked.options)
    return asked, {key: value for key, value in extra.items() if key in VLLM_KEYS}


def within(value: int, default: int, least: int, most: int) -> int | None:
    """A setting of vLLM as ours: None where it has vLLM's default, so that ours counts."""
    return None if value == default else max(least, min(value, most))


def wants_prefetch(strategy: str | None, asked: Asked, mount_classes: Iterable[str]) -> bool:
    """Whether Shardahead loads. `strategy` is vLLM's --safetensors-load-strategy: "prefetch" asks
    for it, "lazy", "eager" and "torchao" are vLLM's own. Where none is given it does with
    --load-format shardahead, and where the mounts of the files say so.
    """
    if strategy is None:
        return asked.by_format or is_prefetched_unasked(mount_classes)
    return strategy == "prefetch"
