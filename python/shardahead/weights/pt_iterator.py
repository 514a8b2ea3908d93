"""Weights of checkpoints that torch.save wrote (.bin, .pt, .pth), loaded through a prefetch.

Nothing is ever unpickled but tensors: torch.load(weights_only=True) refuses all else. The bytes of
each tensor are waited for before it is handed out, so that an error is an OSError and not a SIGBUS.
One consumer at a time.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING

from shardahead.checkpoint.asked_names import Names
from shardahead.checkpoint.asked_parts import Slices
from shardahead.checkpoint.errors import ContentsError
from shardahead.checkpoint.pt_archive import (
    bases_of,
    check_packed,
    check_pickles,
    plain_records,
    read_archive,
)
from shardahead.checkpoint.shards import PT_SUFFIXES, Files
from shardahead.node.residency import evict
from shardahead.prefetch.learning import Learning
from shardahead.prefetch.options import Mode, Options, Partition, Size, Strategy, asked_by
from shardahead.prefetch.touch_follower import TouchFollower
from shardahead.units import quoted
from shardahead.weights.checkpoint_pass import (
    CheckpointPass,
    LoadProgress,
    Weight,
    importing_torch,
)
from shardahead.weights.iterators import WeightsIterator
from shardahead.weights.pt_file import MapError, PtFile
from shardahead.weights.pt_parts import dtype_name, narrowed, place_of
from shardahead.weights.pt_tree import weights_of_tree

if TYPE_CHECKING:
    import torch

    # Where the bytes of a tensor lie in the file: (offset, length).
    Place = tuple[int, int]

logger = logging.getLogger("shardahead")


def pt_weights_iterator(
    files: Files,
    *,
    prefetch: bool = True,
    local_rank: int | None = None,
    local_size: int | None = None,
    threads: int | None = None,
    block_size: Size | None = None,
    strategy: Strategy | None = None,
    partition: Partition | None = None,
    inflight_bytes: Size | None = None,
    window_bytes: Size | None = None,
    names: Names | None = None,
    slices: Slices | None = None,
    strict: bool = True,
    mode: Mode | None = None,
    learn: str | os.PathLike[str] | None = None,
    learn_key: str | None = None,
    replica: str | os.PathLike[str] | None = None,
    drop_after: bool = False,
    progress: Callable[[LoadProgress], None] | None = None,
    options: Options | None = None,
) -> WeightsIterator:
    """Iterates over (name, tensor) of files that torch.save wrote, file after file, in the order of
    each file's dictionary.

    Tensors are what `torch.load(path, map_location="cpu", weights_only=True)` gives, of any kind,
    with and without prefetch and in every `mode`. Only the classes that torch allows there are
    unpickled. Names are the dictionary's keys, as they are.

    Where the dictionary has tensors under just one of the keys "state_dict", "model_state_dict",
    "model", "module", "weights" and "params", in a dictionary, that one is taken in its place. What
    trainers keep beside it (keys such as "optimizer...", "lr_schedulers", "rng_state", "callbacks",
    "loops") is left out, and a warning says so once. What is no tensor and holds none is passed
    over. Tensors anywhere else within are an error: nothing is dropped in silence.

    files: paths, or one path: a file, an index (`*.index.json`, `*.index.fp16.json`), or a folder,
        of which its `*.bin`, else its `*.pt`, else its `*.pth` are read, even where there are
        safetensors files beside.
    prefetch, local_rank, local_size, threads, block_size, strategy, partition, inflight_bytes,
        options: as for `safetensors_weights_iterator`.
    window_bytes: how far the prefetch may be ahead of this iterator; 0 is no limit. By default
        there is none where the files fit `memory_budget()`, else a sixteenth of it: torch holds
        what it has mapped, which cannot be dropped before.
    names, slices, strict: as for `safetensors_weights_iterator`. The files are fetched whole all
        the same: where a tensor lies is not known before. Without an index, that nothing matches is
        known, and raised, after the last file; that a tensor has no such part, when its file has
        been loaded. A callable is given the dtype as safetensors files call it, "BF16", or what
        they have no name for as torch does, "complex128". A part of what is not mapped is copied.
    mode: "mmap": tensors are views of a private mapping of the file, which lives as long as one of
        them. "pread": torch reads the file into memory, without a prefetch. "auto", the default:
        "mmap", but "pread" where the mount turns out to keep no pages. Read in any mode are files
        that cannot be mapped: those of before torch 1.6; archives with compressed, unaligned or
        doubled records, in the other byte order, or with sparse or quantized tensors; and those of
        which memory, or a missing /proc, allows no mapping, which is said once.
    learn, learn_key, replica: as for `safetensors_weights_iterator`; what is touched of a tensor
        counts as long as the iteration goes on.
    drop_after: as for `safetensors_weights_iterator`; what is still held of a file keeps all of it.
    progress: called after each tensor with a LoadProgress, in bytes of files: which tensors there
        are is not known before. Those of one file that are wanted share its bytes by their size.

    Raises as `prefetch_files` does, and ImportError where torch is missing. While iterating:
    CheckpointError for a file that `torch.load(weights_only=True)` refuses, with the class that it
    did not allow, that has no dictionary at its top or tensors out of place, or that would grow
    beyond the limits of docs/reliability.md; OSError with errno and filename if bytes cannot be
    read, memory is short (ENOMEM), or the file is no longer the one that it was, or no file
    (EINVAL, EISDIR, ESTALE).
    """
    load = PtLoad(
        files,
        options=asked_by(locals()),
        topology=(local_rank, local_size),
        prefetch=prefetch,
        names=names,
        slices=slices,
        strict=strict,
        drop_after=drop_after,
        progress=progress,
    )
    return WeightsIterator(load, load.weights())


class PtLoad(CheckpointPass):
    """One pass over such a checkpoint."""

    def __init__(
        self,
        files: Files,
        *,
        options: Options,
        topology: tuple[int | None, int | None],
        prefetch: bool,
        names: Names | None,
        slices: Slices | None = None,
        strict: bool = False,
        drop_after: bool,
        progress: Callable[[LoadProgress], None] | None,
    ) -> None:
        with importing_torch("pt_weights_iterator needs torch"):
            import torch
        self._torch = torch
        self._said: set[str] = set()
        super().__init__(
            files,
            PT_SUFFIXES,
            options=options,
            topology=topology,
            prefetch=prefetch,
            names=names,
            slices=slices,
            strict=strict,
            drop_after=drop_after,
            progress=progress,
            entry="pt_weights_iterator",
        )
        self._before = [0, *accumulate(shard.size_bytes for shard in self.shards)]
        # torch maps the files; when it lets go is not known.
        self._start([None] * len(self.shards), releases=False)
        self._touches: TouchFollower | None = None
        if self.learning is not None and self.prefetch is not None:
            self._touches = TouchFollower(self.learning, self.prefetch.handle)

    def close(self) -> None:
        if self._touches is not None:
            if self._finished:
                self._touches.end()
            self._touches.stop()
        super().close()

    def weights(self) -> Generator[Weight, None, None]:
        """All wanted tensors, file after file."""
        try:
            self._settle_mode()
            for index in range(len(self.shards)):
                yield from self._weights_of(index)
            last = self._was_last()
            self.wants.all_seen()
        except Exception as error:
            self._failed(error)
            raise
        finally:
            self.close()
        if self.drop_after and last:
            evict([shard.path for shard in self.shards])

    def _weights_of(self, index: int) -> Iterator[Weight]:
        tensors, places = self._tensors_of(index)
        self.wants.require(index, tensors)
        parts = self._narrow(index, tensors, places)
        passed = _passed_after(places)
        sizes = {n: _bytes_of(t) for n, t in tensors.items() if self.wants(index, n)}
        done, whole = 0, sum(sizes.values())
        for number, name in enumerate(list(tensors)):
            tensor = tensors.pop(name)  # the consumer decides how long it lives
            if name in sizes:
                for place in places[number] if places else ():
                    for part in self._expected(index, *place):
                        self._bring_in(index, *part, self.learning)
                if name in parts and not places:  # or the rest of it would stay with it
                    tensor = tensor.clone(memory_format=self._torch.contiguous_format)
                yield name, tensor
            del tensor
            if name in sizes:
                done += sizes[name]
                self._tell(index, name, done, whole)
            passed_to = passed[number] if number < len(passed) else None
            if passed_to is not None:
                self._consumed(index, passed_to)
        self._consumed(index, self.shards[index].size_bytes)

    def _narrow(
        self, index: int, tensors: dict[str, torch.Tensor], places: list[list[Place]]
    ) -> set[str]:
        """Puts parts in the place of tensors of which no more is wanted, and gives their names."""
        parts: set[str] = set()
        for number, name in enumerate(tensors if self.parts else ()):
            if not self.wants(index, name):
                continue
            whole = tensors[name]
            shape = tuple(whole.shape)
            bounds = self.parts.bounds(name, shape, dtype_name(whole.dtype))
            if bounds is None or bounds == tuple((0, size) for size in shape):
                continue
            tensors[name] = narrowed(name, whole, bounds)
            parts.add(name)
            if places and places[number]:
                places[number] = place_of(tensors[name], places[number][0])
        return parts

    def _tell(self, index: int, name: str, done: int, whole: int) -> None:
        """`done` of `whole` bytes of a file's tensors stand for that part of the file."""
        if self.progress is None:
            return
        sizes = [shard.size_bytes for shard in self.shards]
        here = sizes[index] * done // whole if whole else sizes[index]
        self.progress(LoadProgress(name, sum(sizes[:index]) + here, sum(sizes)))

    def _tensors_of(self, index: int) -> tuple[dict[str, torch.Tensor], list[list[Place]]]:
        """The weights of a file, and where the bytes of each lie where that file is mapped; nowhere
        where all of it has been brought in.
        """
        shard = self.shards[index]
        self._consumed(index, 0)
        with PtFile(shard.path) as file, _naming(shard.path):
            if self._mapped is not None:
                shard.require_unchanged(file.size_bytes)
            records = self._plain_records(index, file)
            if records is not None:
                mapped = self._map(index, file, records)
                if mapped is not None:
                    return mapped
            self._bring_in(index, 0, file.size_bytes)
            if self.learning is not None:
                self.learning.touched.mark(index, 0, file.size_bytes)
            return self._weights_in(file, file.load()), []

    def _plain_records(self, index: int, file: PtFile) -> dict[int, int] | None:
        """The records of a file that can be mapped: their sizes, by offset. Raises ContentsError
        where it is one that would grow without measure.
        """

        def read(offset: int, length: int) -> bytes:
            self._bring_in(index, offset, min(length, max(0, file.size_bytes - offset)))
            return file.read(offset, length)

        if not file.size_bytes:
            raise ContentsError("is empty")
        if file.path.endswith(".safetensors"):
            raise ContentsError("is for safetensors_weights_iterator")
        if not file.is_archive():
            return None
        archive = read_archive(read, file.size_bytes)
        builds_blindly = check_pickles(archive, read)
        check_packed(archive, read)
        if self.mode != "mmap" or not builds_blindly or not self._maps_privately():
            return None
        return plain_records(archive, file.read)

    def _map(
        self, index: int, file: PtFile, records: Mapping[int, int]
    ) -> tuple[dict[str, torch.Tensor], list[list[Place]]] | None:
        """None where the file has to be read after all."""
        try:
            tensors = self._weights_in(file, file.load_mapped())
        except MapError as error:
            self._say_once("%r cannot be mapped (%s): it is read into memory", file.path, error)
            return None
        storages = [self._storage_of(tensor) for tensor in tensors.values()]
        held = {(s.data_ptr(), s.nbytes()) for s in storages if s is not None}
        bases = bases_of(held, records) if held else [0]
        if len(bases) == 1:
            base = bases[0]
            return tensors, [[(s.data_ptr() - base, s.nbytes())] if s else [] for s in storages]
        if not bases:
            return None
        self._bring_in(index, 0, file.size_bytes)
        return tensors, []

    def _storage_of(self, tensor: torch.Tensor) -> torch.UntypedStorage | None:
        """None where it has no bytes."""
        if tensor.device.type == "meta":
            return None
        storage = tensor.untyped_storage()
        return storage if storage.nbytes() else None

    def _maps_privately(self) -> bool:
        """Not where someone has told torch to map files so that writes reach them."""
        flags = getattr(self._torch.serialization, "get_default_mmap_options", lambda: None)()
        return flags in (None, mmap.MAP_PRIVATE)

    def _weights_in(self, file: PtFile, found: object) -> dict[str, torch.Tensor]:
        if not isinstance(found, Mapping):
            raise ContentsError(f"has no dictionary of tensors, but {type(found).__name__}")
        tensors, left_out = weights_of_tree(found)
        if left_out:
            keys = ", ".join(map(quoted, left_out[:8]))
            self._say_once("%r: what a trainer keeps is left out: %s", file.path, keys)
        return tensors

    def _say_once(self, text: str, path: str, what: object) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.warning(text, path, what)

    def _expected(self, index: int, offset: int, length: int) -> Iterable[Place]:
        """What of these bytes of a tensor is to be there before it is handed out."""
        parts = None if self.learning is None else self.learning.expected(index, offset, length)
        return ((offset, length),) if parts is None else parts

    def _bring_in(
        self, index: int, offset: int, length: int, learning: Learning | None = None
    ) -> None:
        """`learning`: whose profile says that it is wanted."""
        if self._mapped is not None and length:
            self._mapped.consumed(index, 0, offset + length, index)
            self._mapped.fetch_learned(learning, index, offset, length)

    def _consumed(self, index: int, offset: int) -> None:
        self.figures.consumed_bytes = self._before[index] + offset
        if self._mapped is not None:
            self._mapped.consumed(index, offset, None, index)


def _passed_after(places: list[list[Place]]) -> list[int | None]:
    """After each tensor but the last, up to where all has been consumed: dictionaries need not be
    in the order of the file. None where nothing that comes later has bytes.
    """
    passed: list[int | None] = []
    first: int | None = None
    for own in reversed(places[1:]):
        for offset, _length in own:
            first = offset if first is None else min(first, offset)
        passed.append(first)
    return passed[::-1]


def _bytes_of(tensor: torch.Tensor) -> int:
    """Of its elements, also where it is sparse, or shares them with another."""
    return tensor.numel() * tensor.element_size()


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """An error within tells what is wrong with the file, and here which one it is."""
    try:
        yield
    except ContentsError as error:
        # Past the error without the file, which says nothing else.
        raise error.of_file(path) from error.__cause__
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "not enough memory to load it", path) from error
