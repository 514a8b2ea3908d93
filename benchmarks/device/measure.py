"""Measures the second half of a load: tensors from the page cache to a GPU, by several ways.

Makes its checkpoints, runs every way in interleaved rounds, compares what arrived with what the
files hold, prints tables. Measures, and judges nothing; README.md says how. Exit status: 0 all is
measured; 1 some way failed or gave wrong tensors; 2 there is no such device, it has too little
memory, or a step failed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "compare"), str(HERE.parent / "demo")]

import torch  # noqa: E402

import shardahead  # noqa: E402
from device_checkpoint import write_large, write_small  # noqa: E402
from device_limits import KINDS  # noqa: E402
from device_options import Options, parse  # noqa: E402
from device_tables import (  # noqa: E402
    CaseResult,
    WayResult,
    make_load,
    show_case,
    show_limits,
    show_registration,
)
from machine import describe_machine  # noqa: E402
from processes import LoadError, NoAnswerError, Processes  # noqa: E402
from registration import DEFAULT_FLAGS, READ_ONLY_FLAG  # noqa: E402
from ways import ALLOCATING_COPIES, Case, Way  # noqa: E402

_SPARE_BYTES = 2**30  # of the device, for each process
_SMI_FIELDS = "name,driver_version,pcie.link.gen.max,pcie.link.width.max,memory.total"


class Measurement:
    """All that one run of the command measures."""

    def __init__(self, options: Options, scratch: Path) -> None:
        self.options = options
        self.started = time.monotonic()
        self.large = write_large(scratch / "large", options.shards, options.shard_mib)
        small = any(case.small for case in options.cases)
        self.small = write_small(scratch / "small", options.small_mib) if small else []
        _say(f"checkpoints are made: {self._seconds():.0f} s")
        self.results: list[CaseResult] = []
        self.steps: dict[str, Any] = {}
        self.machine: dict[str, Any] = describe_machine() | {
            "scratch": shardahead.mount_of(scratch).type,
            "memory_budget_bytes": shardahead.memory_budget().budget_bytes,
            "torch": torch.__version__,
            "nvidia_smi": _nvidia_smi() if options.cuda else "",
        }

    def run(self) -> None:
        try:
            if "limits" in self.options.steps:
                self._measure_limits()
            for case in self.options.cases:
                self._run_case(case)
            if "registration" in self.options.steps and self.options.cuda:
                self._measure_registration()
        finally:
            self._write()

    @property
    def problems(self) -> bool:
        found = [way for result in self.results for way in result.results]
        return any(way.problem or way.wrong_tensors for way in found)

    def _measure_limits(self) -> None:
        _bring_in(self.large[:1])
        with self._processes(1) as processes:
            [self.steps["limits"]] = processes.ask("limits", str(self.large[0]))
        show_limits(self.steps["limits"])

    def _measure_registration(self) -> None:
        """Last: a process that asks for it may be held by the driver for ever."""
        _bring_in(self.large[:1])
        found = self.steps["registration"] = []
        with self._processes(1) as processes:
            for kind in KINDS:
                for flags in (DEFAULT_FLAGS, READ_ONLY_FLAG):
                    try:
                        [said] = processes.ask("registration", str(self.large[0]), kind, flags)
                    except LoadError as error:
                        said = {"error": str(error)}
                    found.append({"memory": kind, "flags": flags, **said})
                    _say(str(found[-1]))
        show_registration(found)

    def _processes(self, count: int) -> Processes:
        return Processes(self.options.device, count, self.options.load_limit_s)

    def _run_case(self, case: Case) -> None:
        options = self.options
        files = self.small if case.small else self.large
        files = files[: options.cold_shards] if case.cold else files
        ways = options.ways_of(case)
        ranks = options.ranks if case.several else 1
        found = CaseResult(case.name, case.text, ranks, 0, [WayResult(way.name) for way in ways])
        self.results.append(found)
        with self._processes(ranks) as processes:
            self._check_memory(processes, files, ranks, ways)
            names = [str(file) for file in files]
            found.loaded_bytes = processes.ask("take_files", names)[0]
            for number in range(options.rounds + 1):
                for result in found.results:
                    if self._out_of_time():
                        result.problem = result.problem or "not measured to its end: out of time"
                    elif not result.problem:
                        self._load(processes, case, files, found, result, number)
        show_case(found)
        _say(f"{case.name}: {self._seconds():.0f} s")
        self._write()

    def _load(
        self,
        processes: Processes,
        case: Case,
        files: list[Path],
        found: CaseResult,
        result: WayResult,
        number: int,
    ) -> None:
        """Round 0 warms up, and is what is compared."""
        try:
            processes.ask("prepare")
            if case.cold and number:
                _make_cold(files)
            else:
                _bring_in(files)
            load = make_load(processes.ask("load", result.way), found.loaded_bytes)
            if number:
                result.loads.append(load)
                return
            result.warm_up = load
            if not result.way.endswith(":skip"):
                result.wrong_tensors = sum(processes.ask("wrong_tensors"))
        except NoAnswerError as error:
            result.problem = str(error)
            processes.ask("take_files", [str(file) for file in files])
        except LoadError as error:
            result.problem = str(error)

    def _check_memory(
        self, processes: Processes, files: list[Path], ranks: int, ways: tuple[Way, ...]
    ) -> None:
        """Before anything is allocated. Ends the command where the device has too little."""
        [free, *_] = processes.ask("free_bytes")
        size = sum(file.stat().st_size for file in files)
        copies = 2 if any(way.copy in ALLOCATING_COPIES for way in ways) else 1
        needed = ranks * (copies * size + _SPARE_BYTES)
        if free is not None and free < needed:
            text = f"{needed >> 20} MiB of device memory are needed and {free >> 20} MiB are free"
            _fail(f"{text}: fewer --shards, or a smaller --shard-mib")

    def _out_of_time(self) -> bool:
        limit = self.options.time_limit_s
        return limit is not None and self._seconds() > limit

    def _seconds(self) -> float:
        return time.monotonic() - self.started

    def _write(self) -> None:
        if self.options.json is not None:
            everything = {
                "machine": self.machine,
                "steps": self.steps,
                "cases": [asdict(result) for result in self.results],
            }
            self.options.json.write_text(json.dumps(everything, indent=1))


def _resident_bytes(files: list[Path]) -> int | None:
    found = shardahead.residency(files)
    counts = [file.resident_bytes for file in found]
    return None if None in counts else sum(count or 0 for count in counts)


def _bring_in(files: list[Path]) -> None:
    size = sum(file.stat().st_size for file in files)
    if _resident_bytes(files) == size:
        return
    shardahead.prefetch_files(files, 0, 1).wait()
    resident = _resident_bytes(files)
    if resident is not None and resident < size:
        raise LoadError(f"{size - resident} bytes do not stay resident")


def _make_cold(files: list[Path]) -> None:
    shardahead.evict(files)
    resident = _resident_bytes(files)
    if resident != 0:
        raise LoadError(f"not proved cold: {resident} bytes are resident")


def _nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={_SMI_FIELDS}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fail(text: str) -> None:
    _say(f"measure.py: {text}")
    raise SystemExit(2)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.cuda and not torch.cuda.is_available():
        _fail("no CUDA device here, or a torch without CUDA; --device cpu rehearses")
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(dir=options.scratch))
        measurement = Measurement(options, Path(name))
        print(json.dumps(measurement.machine))
        if not options.cuda:
            print("on the CPU: a rehearsal, whose figures mean nothing")
        try:
            measurement.run()
        except LoadError as error:
            _fail(str(error))
    return 1 if measurement.problems else 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if multiprocessing.active_children():  # held by the driver: they cannot be waited for
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
