"""Which rows of the tensors of a checkpoint a tensor parallel rank reads, as the engine's own
modules say it: linear layers that are cut by their output, attention heads with them, embeddings,
and experts.

Only rows: what is cut by columns is spread over all pages of a tensor. Only layers that load as the
engine's own do, and weights that are stored as they are used. Imports no engine: what a model has,
is imported. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shardahead.integrations.passed_over import Rows, loads_as

# How a checkpoint calls what an engine has in one module, by the name of that.
_QKV = ("qkv_proj", ("q_proj", "k_proj", "v_proj"))
_GATE_UP = ("gate_up_proj", ("gate_proj", "up_proj"))


@dataclass(frozen=True)
class Layers:
    """An engine's modules with its linear layers and its embeddings; `place_of(module)`: the rank
    of one of them among those that share it, and how many they are.
    """

    linear: str
    embedding: str
    place_of: Callable[[Any], tuple[int, int]]

    def rows(self, name: str, module: Any) -> Iterator[tuple[str, Rows]]:
        """What the checkpoint calls the module `name`, or each of its parts, and which rows of that
        weight this rank reads; nothing where it reads all, or that is not known.
        """
        if loads_as(module, self.embedding, "VocabParallelEmbedding"):
            if _is_cut_by_rows(module) and module.tp_size > 1:
                indices = module.shard_indices
                start, stop = indices.org_vocab_start_index, indices.org_vocab_end_index
                yield name, Rows(start, stop, module.org_vocab_size, module.tp_size)
        elif loads_as(module, self.linear, "QKVParallelLinear"):
            yield from self._of_heads(name, module)
        elif loads_as(module, self.linear, "MergedColumnParallelLinear"):
            for part, size in zip(_parts(name, *_GATE_UP), module.output_sizes, strict=False):
                yield from self._even(part, module, size)
        elif loads_as(module, self.linear, "ColumnParallelLinear"):
            yield from self._even(name, module, module.output_size)

    def _even(self, name: str, module: Any, size: int) -> Iterator[tuple[str, Rows]]:
        rank, ranks = self.place_of(module)
        if _is_cut_by_rows(module) and ranks > 1 and size % ranks == 0:
            yield name, share(rank, ranks, size, ranks)

    def _of_heads(self, name: str, module: Any) -> Iterator[tuple[str, Rows]]:
        """Where there are fewer heads for keys than ranks, several ranks have the same."""
        rank, ranks = self.place_of(module)
        parts = _parts(name, *_QKV)
        if not parts or not _is_cut_by_rows(module) or ranks == 1:
            return
        of_keys, of_values = module.head_size, getattr(module, "v_head_size", module.head_size)
        yield parts[0], share(rank, ranks, module.total_num_heads * module.head_size, ranks)
        groups = ranks // module.num_kv_head_replicas
        for part, head_size in zip(parts[1:], (of_keys, of_values), strict=True):
            size = module.total_num_kv_heads * head_size
            yield part, share(rank // module.num_kv_head_replicas, groups, size, ranks)


def share(index: int, count: int, of: int, ranks: int) -> Rows:
    """One of `count` equal shares of `of` rows."""
    return Rows(of // count * index, of // count * (index + 1), of, ranks)


def _parts(name: str, merged: str, parts: tuple[str, ...]) -> list[str]:
    parent, _, last = name.rpartition(".")
    return [f"{parent}.{part}".lstrip(".") for part in parts] if last == merged else []


def _is_cut_by_rows(module: Any) -> bool:
    """Whether its weight is stored as rows that it shares out, one output each."""
    if getattr(module, "use_presharded_weights", False):
        return False
    weight = getattr(module, "weight", None)
    packed = getattr(weight, "packed_dim", None)
    of_bits = getattr(weight, "use_bitsandbytes_4bit", False)
    return getattr(weight, "output_dim", None) == 0 and packed is None and not of_bits
