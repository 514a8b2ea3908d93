"""How the bytes of tensors get into parameters on a device: one class a copy of ways.py.

Each has put(name, tensor) for every tensor, and finish() after the last; the device may not be done
by then. For one thread.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

import torch

from registration import registered
from staging import MemoryPiece, Ring
from ways import Way

_POPULATE_READ = 22  # MADV_POPULATE_READ
_LEAST_REGISTERED_BYTES = 2**20
_libc = ctypes.CDLL(None, use_errno=True)

Parameters = dict[str, torch.Tensor]


class Copier:
    """Puts nothing anywhere: tensors that are on the device are kept. `loaded` is the result."""

    def __init__(self, parameters: Parameters, device: torch.device) -> None:
        self.parameters = parameters
        self.device = device
        self.loaded: Parameters = {}

    def put(self, name: str, tensor: torch.Tensor) -> None:
        self.loaded[name] = tensor

    def finish(self) -> None:
        """After the last tensor."""

    def close(self) -> None:
        """After a failure as well."""


class Skip(Copier):
    """What the source takes by itself."""

    def put(self, name: str, tensor: torch.Tensor) -> None:
        pass


class To(Copier):
    def put(self, name: str, tensor: torch.Tensor) -> None:
        self.loaded[name] = tensor.to(self.device)


class Copy(Copier):
    def __init__(self, parameters: Parameters, device: torch.device) -> None:
        super().__init__(parameters, device)
        self.loaded = parameters

    def put(self, name: str, tensor: torch.Tensor) -> None:
        self.parameters[name].copy_(tensor)


class Populate(Copy):
    """Maps the pages of each tensor by one call before it is copied."""

    def put(self, name: str, tensor: torch.Tensor) -> None:
        populate(tensor.data_ptr(), tensor.nbytes)
        super().put(name, tensor)


class Pinned(Copy):
    def put(self, name: str, tensor: torch.Tensor) -> None:
        self.parameters[name].copy_(tensor.pin_memory(), non_blocking=True)


class Registered(Copy):
    """Each tensor is page-locked where it lies, and released when it is copied: neighbours share a
    page, which cannot be locked twice."""

    def put(self, name: str, tensor: torch.Tensor) -> None:
        if tensor.nbytes < _LEAST_REGISTERED_BYTES:
            super().put(name, tensor)
            return
        with registered(tensor.data_ptr(), tensor.nbytes):
            self.parameters[name].copy_(tensor, non_blocking=True)


class Threads(Copy):
    """Several threads, each with a stream, copy whole tensors from ordinary memory."""

    def __init__(self, parameters: Parameters, device: torch.device, threads: int) -> None:
        super().__init__(parameters, device)
        self._pool = ThreadPoolExecutor(threads)
        self._running: deque[Future[None]] = deque()
        self._most_running = 2 * threads
        self._of_thread = local()

    def put(self, name: str, tensor: torch.Tensor) -> None:
        if len(self._running) >= self._most_running:
            self._running.popleft().result()
        self._running.append(self._pool.submit(self._copy, name, tensor))

    def finish(self) -> None:
        while self._running:
            self._running.popleft().result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _copy(self, name: str, tensor: torch.Tensor) -> None:
        if self.device.type != "cuda":
            self.parameters[name].copy_(tensor)
            return
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._of_thread.stream):
            self.parameters[name].copy_(tensor)


class Staged(Copy):
    """Through a ring of pinned buffers that threads fill."""

    def __init__(self, parameters: Parameters, device: torch.device, threads: int) -> None:
        super().__init__(parameters, device)
        self.ring = Ring(device, threads)

    def put(self, name: str, tensor: torch.Tensor) -> None:
        piece = MemoryPiece(tensor.data_ptr(), tensor.nbytes, tensor)
        self.ring.put(bytes_of(self.parameters[name]), piece)

    def finish(self) -> None:
        self.ring.finish()

    def close(self) -> None:
        self.ring.close()


def copier_of(way: Way, parameters: Parameters, device: torch.device) -> Copier:
    """A new one for one load."""
    plain: dict[str, Callable[[Parameters, torch.device], Copier]] = {
        "skip": Skip,
        "none": Copier,
        "to": To,
        "copy": Copy,
        "populate": Populate,
        "pinned": Pinned,
        "registered": Registered,
    }
    if way.copy in plain:
        return plain[way.copy](parameters, device)
    return (Threads if way.copy == "threads" else Staged)(parameters, device, way.threads)


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1).view(torch.uint8)


def populate(address: int, length: int) -> None:
    """Maps resident pages there. Raises OSError (EINVAL before Linux 5.14)."""
    page = os.sysconf("SC_PAGE_SIZE")
    begin = address // page * page
    size = ctypes.c_size_t(address + length - begin)
    if _libc.madvise(ctypes.c_void_p(begin), size, _POPULATE_READ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
