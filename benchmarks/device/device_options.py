"""The options of the command, checked. Pure: reads no files and starts nothing."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ways import CASES, CUDA_COPIES, Case, Way, way_named

#: What is measured beside the cases: steps of a load, and page-locking in place.
STEPS = ("limits", "registration")


@dataclass(frozen=True)
class Options:
    device: str
    steps: tuple[str, ...]
    cases: tuple[Case, ...]
    ways: tuple[Way, ...] | None
    shards: int
    shard_mib: int
    small_mib: int
    cold_shards: int
    ranks: int
    rounds: int
    time_limit_s: float | None
    load_limit_s: float
    scratch: Path | None
    json: Path | None

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def ways_of(self, case: Case) -> tuple[Way, ...]:
        """Those of the case that were asked for, and that this kind of device has."""
        ways = case.ways if self.ways is None else self.ways
        return tuple(way for way in ways if self.cuda or way.copy not in CUDA_COPIES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measures how fast tensors of a checkpoint get to a GPU, by several ways."
    )
    add = parser.add_argument
    add("--device", default="cuda", help="default: cuda; cpu rehearses, its figures mean nothing")
    add("--case", action="append", choices=[*STEPS, *CASES], help="may be repeated; default: all")
    add("--ways", help="comma-separated, for every case; default: those of the case")
    add("--shards", type=int, default=8, help="of the checkpoint of large tensors; default: 8")
    add("--shard-mib", type=int, default=1024, help="of each; default: 1024")
    add("--small-mib", type=int, default=1024, help="of that of small tensors; default: 1024")
    add("--cold-shards", type=int, default=2, help="that are loaded cold; default: 2")
    add("--ranks", type=int, default=4, help="processes of the case ranks; default: 4")
    add("--rounds", type=int, default=5, help="interleaved, after one that does not count")
    add("--time-limit-s", type=float, help="no load begins later than this; default: none")
    add("--load-limit-s", type=float, default=120.0, help="one that takes longer failed")
    add("--scratch", type=Path, help="where checkpoints are made; default: a temporary folder")
    add("--json", type=Path, help="a file for every figure")
    return parser


def parse(arguments: list[str]) -> Options:
    """The options; ends the process with status 2 where they make no sense."""
    parser = _parser()
    given = parser.parse_args(arguments)
    names = ("shards", "shard_mib", "small_mib", "cold_shards", "ranks", "rounds")
    for name in names:
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is at least 1, not {getattr(given, name)}")
    if not (given.device == "cpu" or given.device.startswith("cuda")):
        parser.error(f"--device is cuda, cuda:N or cpu, not {given.device!r}")
    ways = None
    if given.ways is not None:
        try:
            ways = tuple(way_named(name) for name in given.ways.split(","))
        except ValueError as error:
            parser.error(f"--ways: {error}")
    chosen = given.case or [*STEPS, *CASES]
    return Options(
        device=given.device,
        steps=tuple(name for name in STEPS if name in chosen),
        cases=tuple(case for name, case in CASES.items() if name in chosen),
        ways=ways,
        time_limit_s=given.time_limit_s,
        load_limit_s=given.load_limit_s,
        scratch=given.scratch,
        json=given.json,
        **{name: getattr(given, name) for name in names},
    )
