"""Shardahead: model checkpoints loaded at the speed of the storage.

Brings the shards of a checkpoint into the Linux page cache ahead of the processes that load them:
once per node, in the order in which they are read. This module is the public surface; the work is
done in the C++ core. Importing it needs neither torch nor safetensors; the weight iterators do.
"""

# First: the core would hang, or share its state, in an interpreter beside the main one.
from shardahead import main_interpreter  # noqa: F401
from shardahead.about import BuildInfo, KernelInfo, build_info
from shardahead.checkpoint.asked_names import Names
from shardahead.checkpoint.asked_parts import Part, Slices
from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.shards import Files, Shard
from shardahead.node.launcher import LocalTopology
from shardahead.node.memory import MemoryBudget, MemoryLimit, memory_budget
from shardahead.node.mounts import Mount, MountLayer, mount_of
from shardahead.node.residency import FileResidency, evict, residency
from shardahead.node.topology import local_topology
from shardahead.prefetch.beside_loader import prefetching
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import Options
from shardahead.prefetch.progress import Progress
from shardahead.prefetch.report import Report
from shardahead.prefetch.start import prefetch_files
from shardahead.replica.stage import replica_of, stage
from shardahead.replica.whole_replica import Replica, ReplicaFile
from shardahead.version import __version__
from shardahead.weights.checkpoint_pass import LoadProgress, Weight
from shardahead.weights.iterators import (
    WeightsIterator,
    buffered_multi_thread_safetensors_weights_iterator,
    safetensors_weights_iterator,
)
from shardahead.weights.pt_iterator import pt_weights_iterator
from shardahead.weights.stored_tensors import StoredTensor, tensor_ranges

__all__ = [
    "BuildInfo",
    "CheckpointError",
    "FileResidency",
    "Files",
    "KernelInfo",
    "LoadProgress",
    "LocalTopology",
    "MemoryBudget",
    "MemoryLimit",
    "Mount",
    "MountLayer",
    "Names",
    "Options",
    "Part",
    "PrefetchHandle",
    "Progress",
    "Replica",
    "ReplicaFile",
    "Report",
    "Shard",
    "Slices",
    "StoredTensor",
    "Weight",
    "WeightsIterator",
    "__version__",
    "buffered_multi_thread_safetensors_weights_iterator",
    "build_info",
    "evict",
    "local_topology",
    "memory_budget",
    "mount_of",
    "prefetch_files",
    "prefetching",
    "pt_weights_iterator",
    "replica_of",
    "residency",
    "safetensors_weights_iterator",
    "stage",
    "tensor_ranges",
]
