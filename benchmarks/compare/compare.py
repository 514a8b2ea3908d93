"""Compares ways to load a checkpoint cold: N real processes a load, in interleaved rounds.

From the slow filesystem of this repository or from a folder that is given. Measures, and judges
nothing; README.md says how, and what the figures do not tell.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo"), str(HERE.parent / "slowfs")]

import resident  # noqa: E402
from cases import MIB, Case  # noqa: E402
from cgroup import memory_group  # noqa: E402
from cut import of_experts, sliced  # noqa: E402
from hog import hog  # noqa: E402
from job import LEARNED, WRONG, Job  # noqa: E402
from launch import Outcome, Ranks, probe  # noqa: E402
from machine import describe_machine  # noqa: E402
from options import Options, parse, shardahead_variables  # noqa: E402
from picture import draw  # noqa: E402
from records import CaseResult, MethodResult, link_seconds, make_load  # noqa: E402
from slowfs import unavailable_reason  # noqa: E402
from source import checksums_of, make_checkpoint, shards_of, tensors_of, union_of  # noqa: E402
from storage import FolderStorage, NotColdError, SlowStorage, Storage  # noqa: E402
from tables import show, summary  # noqa: E402


class Comparison:
    """All cases of one run of the command."""

    def __init__(self, options: Options, scratch: Path) -> None:
        self.options = options
        self.scratch = scratch
        self.machine = describe_machine()
        self.results: list[CaseResult] = []
        self._probed: dict[str, dict[str, Any]] = {}

    def run(self) -> None:
        for case in self.options.cases:
            self.results.append(self._run_case(case))
            show(self.results[-1], self._text_stream())
            self._write()
        print(f"\n{summary(self.results)}", file=self._text_stream())

    def _run_case(self, case: Case) -> CaseResult:
        command = self.options.command(case)
        if case.resident:
            methods = [m for m in self.options.methods if m.split()[0] == "shardahead"]
            return resident.measure(case, command, methods, self.options.rounds, self.scratch)
        with ExitStack() as stack:
            storage, source = self._storage(case, stack)
            job = self._job(case, storage, source)
            result = self._described(case, command, storage, source, job)
            group = stack.enter_context(memory_group(case.memory_mib))
            job = replace(job, memory_group=group)
            present = [method for method in result.methods if not method.not_installed]
            for number in range(self.options.rounds):
                for method in present:
                    say(f"{case.name}, round {number + 1}: {method.method} ...")
                    self._load(result, method, storage, job)
            for method in present if self.options.verify else ():
                say(f"{case.name}, verifying: {method.method} ...")
                checked = replace(job, verify=True, work_s_per_gib=0.0)
                self._verify(method, storage, checked, shards_of(source))
        return result

    def _storage(self, case: Case, stack: ExitStack) -> tuple[Storage, Path]:
        """What the ranks load from, and where the same files may be read at any time."""
        if self.options.folder is not None:
            return FolderStorage(self.options.folder), self.options.folder
        say(f"{case.name}: {case.text()}")
        source, mountpoint = make_checkpoint(case, self.scratch), self.scratch / "mount"
        mountpoint.mkdir(exist_ok=True)
        return stack.enter_context(SlowStorage(source, mountpoint, case)), source

    def _described(
        self, case: Case, command: str, storage: Storage, source: Path, job: Job
    ) -> CaseResult:
        """The result without its loads: what is loaded, and which methods there are."""
        file_bytes = sum(path.stat().st_size for path in shards_of(source))
        partly = case.slices or case.experts is not None
        wanted_bytes = union_of(shards_of(source), job) if partly else file_bytes
        if self.options.folder is None:
            conditions = case.text()
            link = link_seconds(wanted_bytes, case.rate_mb_per_s, case.round_trip_ms)
        else:
            conditions = f"{case.behaviour()} from {source}, {file_bytes / MIB:.0f} MiB"
            link = link_seconds(wanted_bytes, self.options.link_mb_per_s, 0)
        if wanted_bytes != file_bytes:
            conditions += f", {wanted_bytes / MIB:.0f} MiB wanted of {file_bytes / MIB:.0f}"
        result = CaseResult(
            case, command, conditions, file_bytes, wanted_bytes, link, storage.counted
        )
        for name in self.options.methods:
            found = self._probe(name.split()[0])
            result.methods.append(MethodResult(name, found["missing"], found["versions"]))
        return result

    def _probe(self, kind: str) -> dict[str, Any]:
        if kind not in self._probed:
            say(f"looking for {kind} ...")
            self._probed[kind] = probe(self._python(kind), kind)
        return self._probed[kind]

    def _python(self, kind: str) -> str:
        return self.options.pythons.get(kind, sys.executable)

    def _job(self, case: Case, storage: Storage, source: Path) -> Job:
        files = shards_of(source)
        tensors = tensors_of(files)
        if case.experts is not None:
            tensors = of_experts(tensors, case.experts)
        if case.slices:
            tensors = sliced(tensors, case.job_ranks or case.ranks)
        return Job(
            method="",
            files=[str(storage.folder / path.relative_to(source)) for path in files],
            tensors=tensors,
            size=case.ranks,
            job_ranks=case.job_ranks or 0,
            folder="",
            work_s_per_gib=case.work_s_per_gib,
            kill_rank=case.kill_rank,
            kill_after=case.kill_after,
            hog_mib=case.hog_mib,
            window_mib=case.window_mib,
        )

    def _load(self, result: CaseResult, method: MethodResult, storage: Storage, job: Job) -> None:
        outcome, note = self._measured(method, storage, job)
        served = storage.served_bytes()
        load = make_load(outcome, result.wanted_bytes, result.link_seconds, served, note)
        method.loads.append(load)
        say(f"  {load.problem or f'{load.seconds:.2f} s'}")

    def _measured(self, method: MethodResult, storage: Storage, job: Job) -> tuple[Outcome, str]:
        """As `_outcome`; of a method that learns, the load after the one that it learns from."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as learned:
            if method.method in LEARNED:
                others = job.size if method.method in WRONG else 0
                first, _ = self._outcome(method, storage, replace(job, first_share=others), learned)
                say(f"  learning: {first.problem or f'{first.seconds:.2f} s'}")
            return self._outcome(method, storage, job, learned)

    def _outcome(
        self, method: MethodResult, storage: Storage, job: Job, learned: str = ""
    ) -> tuple[Outcome, str]:
        """One cold load by all ranks, and what could not be had for it. `learned`: the folder of
        what earlier loads of a method that learns have found.
        """
        kind = method.method.split()[0]
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            job = replace(job, method=method.method, folder=folder)
            variables = shardahead_variables(method.method, job.window_mib)
            if kind in LEARNED:
                variables["SHARDAHEAD_LEARN"] = learned
            with Ranks(job, self._python(kind), variables) as ranks:
                ready = ranks.wait_ready()
                if ready.problem:
                    return ready, ""
                try:
                    note = storage.make_cold()
                except NotColdError as error:
                    return Outcome(None, str(error)), ""
                with hog(job.hog_mib, job.memory_group):
                    outcome = ranks.go(self.options.time_limit_s)
                ranks.end()
                return outcome, note

    def _verify(self, method: MethodResult, storage: Storage, job: Job, files: list[Path]) -> None:
        """One more load, whose contents are compared and whose time is not recorded."""
        outcome, _ = self._measured(method, storage, job)
        if outcome.problem:
            method.verified = outcome.problem
            return
        for found in outcome.ranks:
            expected = checksums_of(job, files, found["rank"])
            wrong = [name for name in expected if found["checksums"].get(name) != expected[name]]
            if wrong:
                method.verified = f"rank {found['rank']}: {len(wrong)} tensors differ: {wrong[:5]}"
                return
        tensors = sum(found["tensors"] for found in outcome.ranks)
        method.verified = f"all {tensors} tensors of {len(outcome.ranks)} ranks are bit-identical"

    def _write(self) -> None:
        """After every case: a run of hours must not lose what it has."""
        document = {"machine": self.machine, "cases": [asdict(one) for one in self.results]}
        text = json.dumps(document, indent=1, default=str)
        if self.options.json == "-":
            if len(self.results) == len(self.options.cases):
                print(text)
        elif self.options.json is not None:
            Path(self.options.json).write_text(text)
        if self.options.picture is not None:
            draw(self.results, self.options.picture)

    def _text_stream(self) -> TextIO:
        return sys.stderr if self.options.json == "-" else sys.stdout


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    options = parse(sys.argv[1:])
    reason = unavailable_reason()
    if reason and options.folder is None and not all(case.resident for case in options.cases):
        say(f"no slow filesystem ({reason}); give --folder DIR to load from there")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    scratch = Path(tempfile.mkdtemp(prefix="shardahead-compare-", dir=options.scratch))
    try:
        Comparison(options, scratch).run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
