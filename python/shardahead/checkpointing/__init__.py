"""Readers for `torch.distributed.checkpoint.load`, which bring in what the load plan names. Needs
torch.

    import torch.distributed.checkpoint as dcp
    from shardahead.checkpointing import PrefetchingFileSystemReader

    dcp.load(state, storage_reader=PrefetchingFileSystemReader("/runs/step-1000"))

Imports: `checkpoint`, `node`, `prefetch`, `weights`.
"""

from shardahead.checkpointing.storage_readers import (
    PrefetchingFileSystemReader,
    PrefetchingHuggingFaceStorageReader,
)

__all__ = ["PrefetchingFileSystemReader", "PrefetchingHuggingFaceStorageReader"]
