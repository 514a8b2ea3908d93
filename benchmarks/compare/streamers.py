"""Loaders that read into memory of their own and leave the page cache aside, on CPU tensors.

Used as their documentation says for several ranks that all want all tensors.
"""

from __future__ import annotations

import os
from pathlib import Path

from engines import join_gloo
from methods import Place, Start, Weights


def available_memory_bytes() -> int:
    """What the kernel says could be allocated now."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def fastsafetensors(place: Place) -> Start:
    """ParallelLoader(process group, FILES, device="cpu", nogds=True): each rank reads every
    local_size-th file and broadcasts its tensors over gloo."""
    import torch
    from fastsafetensors import ParallelLoader

    join_gloo(place)

    def start() -> Weights:
        loader = ParallelLoader(
            torch.distributed.group.WORLD,
            place.job.files,
            use_tqdm_on_load=False,
            device="cpu",
            nogds=True,
        )
        try:
            yield from place.cut(loader.iterate_weights())
        finally:
            loader.close()

    return start


def runai(place: Place) -> Start:
    """SafetensorsStreamer.stream_files(FILES, owned=False) with its default settings: each rank
    reads every file, with O_DIRECT where the filesystem takes it."""
    return _runai(place, is_distributed=False)


def runai_buffered(place: Place) -> Start:
    """The same with RUNAI_STREAMER_FS_STRATEGY=sync_buffered, so that the page cache can serve what
    another rank has read."""
    os.environ["RUNAI_STREAMER_FS_STRATEGY"] = "sync_buffered"
    return _runai(place, is_distributed=False)


def runai_distributed(place: Place) -> Start:
    """With is_distributed=True and RUNAI_STREAMER_DIST=1: each rank reads a share and
    broadcasts it over gloo."""
    os.environ["RUNAI_STREAMER_DIST"] = "1"
    return _runai(place, is_distributed=True)


def _runai(place: Place, is_distributed: bool) -> Start:
    from runai_model_streamer import SafetensorsStreamer

    # Its default of 40 GB would hold the whole checkpoint once per rank. Distributed, the limit is
    # the node's; else it is each process's.
    ranks = 1 if is_distributed else max(1, place.size)
    limit = min(40 * 10**9, available_memory_bytes() // 4 // ranks)
    os.environ.setdefault("RUNAI_STREAMER_MEMORY_LIMIT", str(limit))
    join_gloo(place)

    def start() -> Weights:
        with SafetensorsStreamer() as streamer:
            # owned=False: each tensor is copied before the next is asked for, so it may be a view.
            streamer.stream_files(
                place.job.files, device="cpu", is_distributed=is_distributed, owned=False
            )
            yield from place.cut(streamer.get_tensors())

    return start
