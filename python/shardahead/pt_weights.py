"""Weights of checkpoints that torch.save wrote (.bin, .pt, .pth), loaded through a prefetch.

Nothing is ever unpickled but tensors: torch.load(weights_only=True) refuses all else. The bytes of
each tensor are waited for before it is handed out, so that an error is an OSError and not a SIGBUS.
One consumer at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from shardahead.checkpoint_pass import CheckpointPass, Names, importing_torch
from shardahead.policy import PrefetchOptions, resolve_options
from shardahead.shards import PT_SUFFIXES, Files
from shardahead.units import quoted
from shardahead.weights import WeightsIterator

if TYPE_CHECKING:
    import torch

    from shardahead.checkpoint_pass import Weight

    # Where the bytes of a tensor lie in the file: (offset, length).
    Place = tuple[int, int]

_ZIP_MAGIC = b"PK\x03\x04"
_DIRECTORY_BYTES = 64 * 1024  # of the archive, at the end of the file; torch reads it first


def pt_weights_iterator(
    files: Files,
    *,
    prefetch: bool = True,
    local_rank: int | None = None,
    local_size: int | None = None,
    threads: int | None = None,
    block_size: int | None = None,
    window_bytes: int | None = None,
    names: Names | None = None,
    mode: str | None = None,
) -> WeightsIterator:
    """Iterates over (name, tensor) of files that torch.save wrote, file after file, in the order of
    each file's dictionary. What is no tensor in it is passed over.

    Tensors are CPU tensors, what `torch.load(path, map_location="cpu", weights_only=True)` gives,
    with and without prefetch and in every `mode`. Only the classes that torch allows there are
    unpickled.

    files: paths, or one path: a file, an index (`*.index.json`), or a folder, of which its `*.bin`,
        else its `*.pt`, else its `*.pth` are read, even where there are safetensors files beside.
    prefetch, local_rank, local_size, threads, block_size, window_bytes: as for
        `safetensors_weights_iterator`.
    names: only these tensors, a collection or a predicate. The files are fetched whole all the
        same: where a tensor lies is not known before.
    mode: "mmap": tensors are views of a private mapping of the file, which lives as long as one of
        them. "pread": torch reads the file into memory, without a prefetch. "auto", the default:
        "mmap", but "pread" where the mount turns out to keep no pages. Files that torch.save wrote
        before version 1.6 cannot be mapped, and are read.

    Raises as `prefetch_files` does, and ImportError where torch is missing. While iterating:
    ValueError for a file that `torch.load(weights_only=True)` refuses or that has no dictionary at
    its top; OSError with errno and filename if bytes of a tensor cannot be read.
    """
    load = PtLoad(
        files,
        options=resolve_options(threads=threads, block_size=block_size, window_bytes=window_bytes),
        topology=(local_rank, local_size),
        prefetch=prefetch,
        names=names,
        mode=mode,
    )
    return WeightsIterator(load, load.weights())


class PtLoad(CheckpointPass):
    """One pass over such a checkpoint."""

    def __init__(
        self,
        files: Files,
        *,
        options: PrefetchOptions,
        topology: tuple[int | None, int | None],
        prefetch: bool,
        names: Names | None,
        mode: str | None,
    ) -> None:
        with importing_torch("pt_weights_iterator needs torch"):
            import torch
        self._torch = torch
        super().__init__(
            files,
            PT_SUFFIXES,
            options=options,
            topology=topology,
            prefetch=prefetch,
            names=names,
            mode=mode,
        )
        # torch maps the files; when it lets go is not known.
        self._start_prefetch([None] * len(self.shards), releases=False)

    def weights(self) -> Iterator[Weight]:
        """All wanted tensors, file after file."""
        try:
            self._settle_mode()
            for index in range(len(self.shards)):
                yield from self._weights_of(index)
            self._end_consumer()
        finally:
            self.close()

    def _weights_of(self, index: int) -> Iterator[Weight]:
        tensors = self._tensors_of(index)
        self.wants.require(index, tensors)
        places = self._places(index, tensors)
        passed = _passed_after(places)
        for number, name in enumerate(list(tensors)):
            tensor = tensors.pop(name)  # the consumer decides how long it lives
            if places and self.wants(index, name):
                self._bring_in(index, *places[number])
            if self.wants(index, name):
                yield name, tensor
            del tensor
            if places and number < len(passed):
                self._consumed(index, passed[number])
        self._consumed(index, self.shards[index].size_bytes)

    def _tensors_of(self, index: int) -> dict[str, torch.Tensor]:
        """The file's dictionary without what is no tensor; mapped, none of their bytes is read."""
        path, size_bytes = self.shards[index].path, self.shards[index].size_bytes
        self._consumed(index, 0)
        mapped = self.mode == "mmap" and _is_archive(path)
        if mapped:
            tail_bytes = min(size_bytes, _DIRECTORY_BYTES)
            self._bring_in(index, size_bytes - tail_bytes, tail_bytes)
        else:
            self._bring_in(index, 0, size_bytes)
        try:
            found = self._torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except OSError:
            raise
        except Exception as error:  # UnpicklingError, RuntimeError, EOFError: whatever it meets
            reason = quoted(str(error))
            raise ValueError(f"{path!r} is no checkpoint of tensors alone: {reason}") from error
        if not isinstance(found, Mapping):
            raise ValueError(f"{path!r} has no dictionary of tensors, but {type(found).__name__}")
        is_tensor = self._torch.is_tensor
        return {name: value for name, value in found.items() if is_tensor(value)}

    def _places(self, index: int, tensors: Mapping[str, torch.Tensor]) -> list[Place]:
        """Where each tensor lies in the mapped file. None where that cannot be found out: then the
        whole file is brought in first.
        """
        if self._mapped is None or not tensors:
            return []
        storages = [tensor.untyped_storage() for tensor in tensors.values()]
        base = _mapping_of(max(storage.data_ptr() for storage in storages), self.shards[index].path)
        if base is None:
            self._bring_in(index, 0, self.shards[index].size_bytes)
            return []
        return [
            (storage.data_ptr() - base if storage.nbytes() else 0, storage.nbytes())
            for storage in storages
        ]

    def _bring_in(self, index: int, offset: int, length: int) -> None:
        if self._mapped is not None and length:
            self._mapped.consumed(index, 0, offset + length, index)
            self._mapped.fetch_now(index, offset, length)

    def _consumed(self, index: int, offset: int) -> None:
        if self._mapped is not None:
            self._mapped.consumed(index, offset, None, index)


def _passed_after(places: list[Place]) -> list[int]:
    """After each tensor but the last, up to where all has been consumed: dictionaries need not be
    in the order of the file.
    """
    passed = []
    first = None
    for offset, _length in reversed(places[1:]):
        first = offset if first is None else min(first, offset)
        passed.append(first)
    return passed[::-1]


def _is_archive(path: str) -> bool:
    """Whether it is of the kind that can be mapped."""
    with open(path, "rb") as file:
        return file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def _mapping_of(address: int, path: str) -> int | None:
    """The address of byte 0 of the file that is mapped at `address`; None where /proc does not say,
    or something else is there.
    """
    try:
        inode = os.stat(path).st_ino
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                fields = line.split(None, 5)
                begin, _, end = fields[0].partition(b"-")
                if int(begin, 16) <= address < int(end, 16):
                    same = int(fields[4]) == inode
                    return int(begin, 16) - int(fields[2], 16) if same else None
    except (OSError, ValueError, IndexError):
        pass
    return None
