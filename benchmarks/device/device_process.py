"""One process that loads to the device, when it is told: the body of each rank.

It answers one request at a time over a connection, in the order in which they come. Times are those
of the clock that all processes of a node share.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from device_limits import measure_limits, measure_registration
from shardahead import safetensors_weights_iterator
from shardahead.checkpoint.safetensors_header import read_header
from staging import FilePiece
from to_device import Copier, Parameters, Staged, bytes_of, copier_of
from ways import Way, way_named

_POISON = 0xA5
Weights = Iterator[tuple[str, torch.Tensor]]


def serve(connection: Connection, device_name: str, rank: int, ranks: int) -> None:
    """Answers ("name", arguments...) by the method of that name, until None comes."""
    torch.set_num_threads(1)
    process = LoadingProcess(torch.device(device_name), rank, ranks)
    while (request := connection.recv()) is not None:
        name, *arguments = request
        try:
            connection.send(("done", getattr(process, name)(*arguments)))
        except Exception as error:  # told in the table: the other ways go on
            connection.send(("failed", f"{type(error).__name__}: {error}"))


class LoadingProcess:
    def __init__(self, device: torch.device, rank: int, ranks: int) -> None:
        self._device = device
        self._rank = rank
        self._ranks = ranks
        self._files: list[str] = []
        self._parameters: Parameters = {}
        self._loaded: Parameters = {}
        if device.type == "cuda":
            torch.cuda.set_device(device.index or 0)
            torch.zeros(1, device=device)

    def free_bytes(self) -> int | None:
        """Of the device; None for the memory of the machine."""
        if self._device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(self._device)
        return int(free)

    def take_files(self, files: list[str]) -> int:
        """What is to be loaded; makes the parameters. The bytes of all tensors."""
        self._loaded = {}
        self._parameters = {}
        self._files = files
        for file in files:
            with safe_open(file, "pt") as shard:
                for name in shard.keys():  # noqa: SIM118 - not a dict
                    like = shard.get_tensor(name)
                    made = torch.empty(like.shape, dtype=like.dtype, device=self._device)
                    self._parameters[name] = made
        return sum(tensor.nbytes for tensor in self._parameters.values())

    def prepare(self) -> None:
        """Before a load: nothing that is on the device is right, nothing is pinned any more."""
        self._loaded = {}
        for tensor in self._parameters.values():
            bytes_of(tensor).fill_(_POISON)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
            _forget_pinned()

    def load(self, name: str) -> dict[str, Any]:
        """One load by the way of that name."""
        way = way_named(name)
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.monotonic()
        with ExitStack() as stack:
            copier = copier_of(way, self._parameters, self._device)
            set_up = time.monotonic()
            stack.callback(copier.close)
            if way.source == "files":
                self._put_pieces(copier, stack)
            else:
                self._put_tensors(way, copier, stack)
            copier.finish()
            _wait_for(self._device)
            ended = time.monotonic()
        after = resource.getrusage(resource.RUSAGE_SELF)
        self._loaded = copier.loaded
        return {
            "started": started,
            "ended": ended,
            "set_up_seconds": set_up - started,
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "minor_faults": after.ru_minflt - before.ru_minflt,
            "major_faults": after.ru_majflt - before.ru_majflt,
        }

    def wrong_tensors(self) -> int:
        """How many of the last load are missing or differ from what safetensors gives."""
        wrong = 0
        for file in self._files:
            for name, right in load_file(file).items():
                found = self._loaded.get(name)
                wrong += found is None or not torch.equal(
                    bytes_of(found), bytes_of(right.to(self._device))
                )
        return wrong

    def limits(self, file: str) -> list[dict[str, Any]]:
        return measure_limits(self._device, file)

    def registration(self, file: str, kind: str, flags: int) -> dict[str, Any]:
        return measure_registration(self._device, file, kind, flags)

    def _put_tensors(self, way: Way, copier: Copier, stack: ExitStack) -> None:
        for name, tensor in self._weights(way, stack):
            copier.put(name, tensor)

    def _weights(self, way: Way, stack: ExitStack) -> Weights:
        if way.source == "load_file":
            return _by_load_file(self._files)
        if way.source == "safe_open":
            return _by_safe_open(self._files, self._device)
        return stack.enter_context(
            closing(
                safetensors_weights_iterator(
                    self._files,
                    mode="mmap" if way.source == "mmap" else "pread",
                    local_rank=self._rank,
                    local_size=self._ranks,
                )
            )
        )

    def _put_pieces(self, copier: Copier, stack: ExitStack) -> None:
        assert isinstance(copier, Staged)
        for file in self._files:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            for tensor in sorted(read_header(file).tensors, key=lambda found: found.offset):
                target = bytes_of(self._parameters[tensor.name])
                copier.ring.put(target, FilePiece(descriptor, tensor.offset, tensor.length))


def _by_load_file(files: list[str]) -> Weights:
    for file in files:
        yield from load_file(file).items()


def _by_safe_open(files: list[str], device: torch.device) -> Weights:
    for file in files:
        with safe_open(file, "pt", device=str(device)) as shard:
            for name in shard.keys():  # noqa: SIM118 - not a dict
                yield name, shard.get_tensor(name)


def _wait_for(device: torch.device) -> None:
    """For all streams. Blocking: a wait that spins would count as processor time."""
    if device.type != "cuda":
        return
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record()
    done.synchronize()
    torch.cuda.synchronize()


def _forget_pinned() -> None:
    """torch keeps pinned memory that is free; a load in a new process has none."""
    forget: Callable[[], None] | None = getattr(torch._C, "_host_emptyCache", None)
    if forget is not None:
        forget()
