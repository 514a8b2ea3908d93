"""TensorRT-LLM: its HfWeightLoader with the prefetch of Shardahead.

    from tensorrt_llm import LLM
    from tensorrt_llm._torch.models.checkpoints.hf.checkpoint_loader import HfCheckpointLoader
    from shardahead.integrations.tensorrt_llm import weight_loader
    llm = LLM(MODEL, checkpoint_loader=HfCheckpointLoader(weight_loader=weight_loader()))

The class is made when it is asked for: TensorRT-LLM is imported only then. Written against its
documented interface, and not run in the real engine.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

from shardahead.integrations.seams import Seam, decline, missing
from shardahead.prefetch.options import (
    Options,
    Partition,
    Size,
    Strategy,
    asked_by,
    is_disabled,
    resolve_options,
)
from shardahead.prefetch.start import prefetch_files

_LOADER = "tensorrt_llm._torch.models.checkpoints.hf.weight_loader"
_SEAMS = (
    Seam(_LOADER, "HfWeightLoader.load_weights", ("self", "checkpoint_dir")),
    Seam(_LOADER, "HfWeightLoader.prefetch_files", ("self", "file_names")),
)

logger = logging.getLogger("shardahead")


def weight_loader(
    *,
    threads: int | None = None,
    block_size: Size | None = None,
    strategy: Strategy | None = None,
    partition: Partition | None = None,
    window_bytes: Size | None = None,
    inflight_bytes: Size | None = None,
    options: Options | None = None,
    **engine_options: Any,
) -> Any:
    """An HfWeightLoader(**engine_options) that prefetches through Shardahead; the other arguments
    are options of `prefetch_files`. It can be pickled.

    TensorRT-LLM calls its prefetch_files() on each local rank before it loads, and loads when all
    have returned from it. With SHARDAHEAD_DISABLE=1, or where HfWeightLoader is not as expected,
    which one warning then says, it is HfWeightLoader's own.

    Raises ValueError and TypeError as `prefetch_files` does, ImportError without TensorRT-LLM.
    """
    asked = asked_by(locals())
    resolve_options(asked)  # the variables, too, are judged before anything starts
    from tensorrt_llm._torch.models.checkpoints.hf.weight_loader import HfWeightLoader

    reason = missing(_SEAMS)
    if reason is not None:
        decline("tensorrt_llm", reason, tested="none")
    if reason is not None or is_disabled():
        return HfWeightLoader(**engine_options)
    return _subclass(HfWeightLoader)(asked, engine_options)


@functools.cache
def _subclass(base: Any) -> Any:
    class ShardaheadWeightLoader(base):  # type: ignore[misc, unused-ignore]
        """HfWeightLoader, prefetching through Shardahead."""

        def __init__(self, options: Options, engine_options: dict[str, Any]) -> None:
            super().__init__(**engine_options)
            self._shardahead_options = options
            self._engine_options = engine_options

        def __reduce__(self) -> tuple[Any, ...]:
            return _make, (self._shardahead_options, self._engine_options)

        def prefetch_files(
            self,
            file_names: Sequence[str],
            communicator: Any = None,
            *,
            local_rank: int | None = None,
            local_size: int | None = None,
        ) -> None:
            """Returns when this rank has nothing more to bring in, and never raises for what it
            could not. `communicator` is that of the local ranks, which some versions give.
            """
            if communicator is not None:
                local_rank, local_size = communicator.Get_rank(), communicator.Get_size()
            if is_disabled():
                return
            try:
                handle = prefetch_files(
                    list(file_names), local_rank, local_size, options=self._shardahead_options
                )
            except OSError as error:  # the load says what is wrong with its files
                logger.warning("no prefetch: %s", error)
                return
            with handle:
                handle.wait()

    return ShardaheadWeightLoader


def _make(options: Options, engine_options: dict[str, Any]) -> Any:
    """What a pickled loader is on the other side."""
    return weight_loader(options=options, **engine_options)
