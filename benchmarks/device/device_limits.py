"""What copies to a device can reach at best, step by step, and what can be page-locked in place.

Each figure is a list of rates, one for each repetition, in GB/s. One process, nothing beside it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from registration import RegistrationError, registered
from staging import read_full
from to_device import populate

MIB = 2**20
_REPETITIONS = 5
_PIECE_BYTES = 16 * MIB
_PINNED_BYTES = 128 * MIB
_THREADS = (1, 4, 8, 16)
_WRITABLE = mmap.PROT_READ | mmap.PROT_WRITE
#: Kinds of memory that are page-locked where they lie: how they are shared, and the protection.
KINDS = {
    "anonymous": (mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, _WRITABLE),
    "private mapping, writable": (mmap.MAP_PRIVATE, _WRITABLE),
    "private mapping, read-only": (mmap.MAP_PRIVATE, mmap.PROT_READ),
    "shared mapping, read-only": (mmap.MAP_SHARED, mmap.PROT_READ),
}
_MAP_FAILED = ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p


def measure_limits(device: torch.device, file: str) -> list[dict[str, Any]]:
    """`file` is resident. Without a CUDA device nothing is pinned: a rehearsal."""
    cuda = device.type == "cuda"
    length = min(os.stat(file).st_size, 1024 * MIB) // _PIECE_BYTES * _PIECE_BYTES
    if not length:
        raise ValueError(f"{file!r} has less than {_PIECE_BYTES} bytes")
    target = torch.empty(length, dtype=torch.uint8, device=device)
    memory = torch.ones(length, dtype=torch.uint8)
    pinned = torch.ones(min(_PINNED_BYTES, length), dtype=torch.uint8, pin_memory=cuda)
    found = [
        _measured("pinned memory to the device", length, partial(_send, pinned, target)),
        _measured("ordinary memory to the device", length, partial(_copy, memory, target)),
    ]
    for threads in _THREADS:
        with ThreadPoolExecutor(threads) as pool:
            steps = {
                "ordinary memory to pinned": partial(
                    _move, pool, memory.data_ptr(), length, pinned
                ),
                "mapping to pinned": partial(_move_mapping, pool, file, length, pinned),
                "pread into pinned": partial(_read, pool, file, length, pinned),
            }
            found += [
                _measured(f"{name}, threads {threads}", length, step)
                for name, step in steps.items()
            ]
    found.append(
        _measured("mapping populated by one call", length, partial(_populate, file, length))
    )
    if cuda:
        found.append(_measured("new memory pinned", length, partial(_pin, length)))
    return found


def measure_registration(device: torch.device, file: str, kind: str, flags: int) -> dict[str, Any]:
    """What cudaHostRegister says to one kind of memory, of KINDS, and what comes of it."""
    length = min(os.stat(file).st_size, 256 * MIB) // _PIECE_BYTES * _PIECE_BYTES
    target = torch.empty(length, dtype=torch.uint8, device=device)
    sharing, protection = KINDS[kind]
    with _mapping(file, length, sharing, protection) as address:
        populate(address, length)
        return _register(address, flags, target)


def _register(address: int, flags: int, target: torch.Tensor) -> dict[str, Any]:
    length = target.numel()
    source = torch.frombuffer((ctypes.c_char * length).from_address(address), dtype=torch.uint8)
    before = _private_bytes()
    started = time.perf_counter()
    try:
        with registered(address, length, flags):
            seconds = time.perf_counter() - started
            copied = _private_bytes() - before
            rate = _measured("", length, partial(_send, source, target))
    except RegistrationError as error:
        return {"error": str(error)}
    return {
        "error": "",
        "register_seconds": seconds,
        "copied_bytes": max(0, copied),
        "rates_gb_per_s": rate["rates_gb_per_s"],
    }


def _measured(name: str, length: int, run: Callable[[], None]) -> dict[str, Any]:
    rates = []
    before = resource.getrusage(resource.RUSAGE_SELF)
    for number in range(_REPETITIONS + 1):
        if number == 1:
            before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        run()
        rates.append(length / 1e9 / (time.perf_counter() - started))
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    gib = _REPETITIONS * length / 2**30
    return {
        "name": name,
        "first_gb_per_s": rates[0],
        "rates_gb_per_s": rates[1:],
        "cpu_s_per_gib": seconds / gib,
        "minor_faults_per_gib": (after.ru_minflt - before.ru_minflt) / gib,
    }


def _send(source: torch.Tensor, target: torch.Tensor) -> None:
    """All of `target`, in pieces, from as much page-locked memory as there is."""
    pieces = source.numel() // _PIECE_BYTES
    for number in range(target.numel() // _PIECE_BYTES):
        piece = source.narrow(0, number % pieces * _PIECE_BYTES, _PIECE_BYTES)
        target.narrow(0, number * _PIECE_BYTES, _PIECE_BYTES).copy_(piece, non_blocking=True)
    if target.is_cuda:
        torch.cuda.synchronize()


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    target.copy_(source)
    if target.is_cuda:
        torch.cuda.synchronize()


def _move(pool: ThreadPoolExecutor, address: int, length: int, pinned: torch.Tensor) -> None:
    to = pinned.data_ptr()
    size = pinned.numel()

    def piece(at: int) -> None:
        ctypes.memmove(to + at % size, address + at, _PIECE_BYTES)

    list(pool.map(piece, range(0, length, _PIECE_BYTES)))


def _move_mapping(pool: ThreadPoolExecutor, file: str, length: int, pinned: torch.Tensor) -> None:
    with _mapping(file, length, mmap.MAP_PRIVATE, _WRITABLE) as address:
        _move(pool, address, length, pinned)


def _read(pool: ThreadPoolExecutor, file: str, length: int, pinned: torch.Tensor) -> None:
    memory = pinned.numpy().data
    size = pinned.numel()
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)

    def piece(at: int) -> None:
        start = at % size
        read_full(descriptor, memory[start : start + _PIECE_BYTES], at)

    try:
        list(pool.map(piece, range(0, length, _PIECE_BYTES)))
    finally:
        os.close(descriptor)


def _populate(file: str, length: int) -> None:
    with _mapping(file, length, mmap.MAP_PRIVATE, _WRITABLE) as address:
        populate(address, length)


def _pin(length: int) -> None:
    torch._C._host_emptyCache()
    torch.empty(length, dtype=torch.uint8, pin_memory=True)


@contextmanager
def _mapping(file: str, length: int, sharing: int, protection: int) -> Iterator[int]:
    """The address: the module mmap gives none of what is read-only."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        of_file = -1 if sharing & mmap.MAP_ANONYMOUS else descriptor
        size = ctypes.c_size_t(length)
        address = _libc.mmap(None, size, protection, sharing, of_file, ctypes.c_long(0))
        if address == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), file)
        try:
            yield address
        finally:
            _libc.munmap(ctypes.c_void_p(address), size)
    finally:
        os.close(descriptor)


def _private_bytes() -> int:
    """Memory of this process that no file backs: what copies of a file's pages add to."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
