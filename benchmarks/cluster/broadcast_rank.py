"""One rank that does what many do by hand: rank 0 reads the checkpoint, torch.distributed's
broadcast brings each block to all, and each rank writes it to its own folder.

    broadcast_rank.py SOURCE TARGET tcp://HOST:PORT RANK RANKS

Three threads: one reads ahead (of rank 0 alone), one talks, one writes behind.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from queue import Queue
from typing import Any

import torch
import torch.distributed as dist

BLOCK_BYTES = 16 << 20
_BUFFERS = 4
_WAIT = timedelta(seconds=300)


@dataclass(frozen=True)
class Piece:
    """`length` bytes of a file from `offset` on, at the beginning of a buffer."""

    name: Path
    offset: int
    length: int
    buffer: torch.Tensor

    @property
    def content(self) -> torch.Tensor:
        return self.buffer[: self.length]

    def bytes(self) -> memoryview:
        content: Any = self.content.numpy()
        return memoryview(content)


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    rank, ranks = int(sys.argv[4]), int(sys.argv[5])
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "eth0")
    dist.init_process_group(
        "gloo", init_method=sys.argv[3], rank=rank, world_size=ranks, timeout=_WAIT
    )
    told: list[Any] = [sizes_of(source) if rank == 0 else None]
    dist.broadcast_object_list(told, src=0)
    sizes: dict[str, int] = told[0]
    making = target.with_name(f".{target.name}.making")
    for name in sizes:
        (making / name).parent.mkdir(parents=True, exist_ok=True)
        (making / name).touch()
    free: Queue[torch.Tensor] = Queue()
    for _ in range(_BUFFERS):
        free.put(torch.empty(BLOCK_BYTES, dtype=torch.uint8))
    written: Queue[Piece | None] = Queue()
    writer = threading.Thread(target=write_behind, args=(making, written, free))
    writer.start()
    for piece in read_ahead(source, sizes, free) if rank == 0 else blank(sizes, free):
        dist.broadcast(piece.content, src=0)
        written.put(piece)
    written.put(None)
    writer.join()
    making.rename(target)
    # Who has all may not go before the others have it: rank 0 is what they talk to.
    dist.barrier()
    dist.destroy_process_group()


def sizes_of(source: Path) -> dict[str, int]:
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return {str(path.relative_to(source)): path.stat().st_size for path in files}


def blank(sizes: dict[str, int], free: Queue[torch.Tensor]) -> Iterator[Piece]:
    """All pieces in order, each as soon as there is a buffer for it."""
    for name, size in sizes.items():
        for offset in range(0, size, BLOCK_BYTES):
            yield Piece(Path(name), offset, min(BLOCK_BYTES, size - offset), free.get())


def read_ahead(source: Path, sizes: dict[str, int], free: Queue[torch.Tensor]) -> Iterator[Piece]:
    ready: Queue[Piece | None] = Queue(_BUFFERS)

    def read() -> None:
        for piece in blank(sizes, free):
            with open(source / piece.name, "rb", buffering=0) as file:
                file.seek(piece.offset)
                left = piece.bytes()
                while left:
                    left = left[file.readinto(left) :]
            ready.put(piece)
        ready.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (piece := ready.get()) is not None:
        yield piece


def write_behind(making: Path, written: Queue[Piece | None], free: Queue[torch.Tensor]) -> None:
    while (piece := written.get()) is not None:
        with open(making / piece.name, "r+b", buffering=0) as file:
            file.seek(piece.offset)
            left = piece.bytes()
            while left:
                left = left[file.write(left) :]
        free.put(piece.buffer)


if __name__ == "__main__":
    main()
