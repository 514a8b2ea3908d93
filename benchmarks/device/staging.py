"""A ring of pinned buffers between host memory, or files, and the device.

Threads fill the buffers, by memcpy or by pread; the owner's thread then queues one copy for each
tensor in a buffer, and takes the buffer again when the device is done with it. For one owner's
thread. Without a CUDA device the buffers are ordinary memory: a rehearsal.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

STAGING_BYTES = 128 * 2**20
_LEAST_BUFFERS = 4


@dataclass(frozen=True)
class MemoryPiece:
    """Bytes at an address, and who keeps them there."""

    address: int
    length: int
    holder: object

    def part(self, start: int, length: int) -> MemoryPiece:
        return MemoryPiece(self.address + start, length, self.holder)


@dataclass(frozen=True)
class FilePiece:
    """Bytes of an open file."""

    descriptor: int
    offset: int
    length: int

    def part(self, start: int, length: int) -> FilePiece:
        return FilePiece(self.descriptor, self.offset + start, length)


@dataclass
class _Slot:
    """One buffer; `parts` are the pieces in it: where they begin, and where they are to go."""

    buffer: torch.Tensor
    event: torch.cuda.Event | None
    parts: list[tuple[int, MemoryPiece | FilePiece, torch.Tensor]]
    used_bytes: int = 0
    filled: Future[None] | None = None


class Ring:
    def __init__(self, device: torch.device, threads: int) -> None:
        count = max(_LEAST_BUFFERS, 2 * threads)
        cuda = device.type == "cuda"
        self._buffer_bytes = STAGING_BYTES // count
        self._slots = [
            _Slot(
                torch.empty(self._buffer_bytes, dtype=torch.uint8, pin_memory=cuda),
                # Blocking: who waits for the device takes no processor time.
                torch.cuda.Event(blocking=True) if cuda else None,  # type: ignore[no-untyped-call]
                [],
            )
            for _ in range(count)
        ]
        self._free = deque(self._slots[1:])
        self._current = self._slots[0]
        self._filling: deque[_Slot] = deque()
        self._most_filling = count // 2 + 1
        self._pool = ThreadPoolExecutor(threads)

    def put(self, target: torch.Tensor, piece: MemoryPiece | FilePiece) -> None:
        """Copies the piece to `target`, bytes on the device, by the end of finish()."""
        start = 0
        while start < piece.length:
            if self._current.used_bytes == self._buffer_bytes:
                self._next()
            slot = self._current
            length = min(piece.length - start, self._buffer_bytes - slot.used_bytes)
            part = piece.part(start, length)
            slot.parts.append((slot.used_bytes, part, target[start : start + length]))
            slot.used_bytes += length
            start += length

    def finish(self) -> None:
        """Queues what is left; the device may not be done with it."""
        self._fill_current()
        while self._filling:
            self._send()
        self._pool.shutdown()

    def close(self) -> None:
        """After a failure as well."""
        self._pool.shutdown(cancel_futures=True)

    def _next(self) -> None:
        self._fill_current()
        while self._filling and (
            len(self._filling) >= self._most_filling or _is_done(self._filling[0])
        ):
            self._send()
        while not self._free:
            self._send()
        self._current = self._free.popleft()
        if self._current.event is not None:
            self._current.event.synchronize()

    def _fill_current(self) -> None:
        slot = self._current
        slot.filled = self._pool.submit(_fill, slot)
        self._filling.append(slot)

    def _send(self) -> None:
        slot = self._filling.popleft()
        if slot.filled is not None:
            slot.filled.result()
        for start, part, target in slot.parts:
            target.copy_(slot.buffer[start : start + part.length], non_blocking=True)
        if slot.event is not None:
            slot.event.record()
        slot.parts = []
        slot.used_bytes = 0
        self._free.append(slot)


def _is_done(slot: _Slot) -> bool:
    return slot.filled is not None and slot.filled.done()


def _fill(slot: _Slot) -> None:
    """In a thread of the pool. Pieces that adjoin in a file are read at once."""
    address = slot.buffer.data_ptr()
    memory = slot.buffer.numpy().data
    at = 0
    while at < len(slot.parts):
        start, piece, _ = slot.parts[at]
        at += 1
        if isinstance(piece, MemoryPiece):
            ctypes.memmove(address + start, piece.address, piece.length)  # without the GIL
            continue
        length = piece.length
        while at < len(slot.parts) and _adjoins(slot.parts[at][1], piece, length):
            length += slot.parts[at][1].length
            at += 1
        read_full(piece.descriptor, memory[start : start + length], piece.offset)


def _adjoins(later: MemoryPiece | FilePiece, first: FilePiece, length: int) -> bool:
    return (
        isinstance(later, FilePiece)
        and later.descriptor == first.descriptor
        and later.offset == first.offset + length
    )


def read_full(descriptor: int, memory: memoryview, offset: int) -> None:
    """Raises EOFError where the file ends before."""
    done = 0
    while done < len(memory):
        count = os.preadv(descriptor, [memory[done:]], offset + done)
        if not count:
            raise EOFError(f"the file ends at {offset + done}")
        done += count
