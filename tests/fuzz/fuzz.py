"""Runs the fuzz targets: `make fuzz FUZZ_SECONDS=600`, or `make fuzz FUZZ_RUNS=20000`.

Builds them in build/fuzz under ASan and UBSan, with libFuzzer where a Clang can be had, else with
the compiler at hand and replay.cpp. Inputs that reach new code are kept in build/fuzz/corpus, those
that break something in build/fuzz/findings. Prints the executions of each; fails if one failed.
With --smoke it is libFuzzer's targets alone, and nothing where there is none: `make fuzz-smoke`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "fuzz"
FINDINGS = BUILD / "findings"
MAX_INPUT_BYTES = 4096
REPLAY_RUNS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Outcome:
    target: str
    executions: int
    seconds: float
    failed: bool
    output: str


def find_clang() -> str | None:
    """A Clang that links libFuzzer, installed from the distribution where that is allowed."""
    command = ["sh", str(HERE / "install-clang.sh")]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return found.strip() or None


def build(clang: str | None, cmake: list[str], jobs: int) -> None:
    options = [f"-DCMAKE_CXX_COMPILER={clang}", "-DSHARDAHEAD_LIBFUZZER=ON"] if clang else []
    options += ["-DSHARDAHEAD_FUZZ=ON", "-DSHARDAHEAD_SANITIZE=address,undefined"]
    # Clang's warnings are clang-tidy's business.
    options += ["-DSHARDAHEAD_WERROR=OFF", "-DCMAKE_BUILD_TYPE=None"]
    program = str(Path(sys.executable).with_name("cmake"))
    where = ["-S", str(ROOT), "-B", str(BUILD), "--log-level=NOTICE"]
    subprocess.run([program, *where, *cmake, *options], check=True)
    subprocess.run(
        [program, "--build", str(BUILD), "--parallel", str(jobs), "--target", "fuzz_targets"],
        check=True,
    )


def run_libfuzzer(target: str, seconds: int, runs: int) -> Outcome:
    grown = BUILD / "corpus" / target
    grown.mkdir(parents=True, exist_ok=True)
    command = [
        str(BUILD / "tests" / "fuzz" / f"fuzz_{target}"),
        f"-max_len={MAX_INPUT_BYTES}",
        "-print_final_stats=1",
        f"-artifact_prefix={FINDINGS}/{target}-",
        f"-runs={runs}" if runs else f"-max_total_time={seconds}",
        str(grown),
        str(HERE / "corpus" / target),
    ]
    began = time.monotonic()
    # Latin-1: what a target prints of its input may be any bytes.
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, encoding="latin-1"
    )
    counted = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    executions = int(counted[1]) if counted else 0
    return Outcome(
        target, executions, time.monotonic() - began, done.returncode != 0, done.stdout[-4000:]
    )


def run_replay(target: str, seconds: int, runs: int) -> Outcome:
    began = time.monotonic()
    executions = 0
    at_once = runs or REPLAY_RUNS_AT_ONCE
    for seed in range(1, 1 << 30):
        command = [
            str(BUILD / "tests" / "fuzz" / f"fuzz_{target}"),
            f"-runs={at_once}",
            f"-seed={seed}",
            str(HERE / "corpus" / target),
        ]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            encoding="latin-1",
            cwd=FINDINGS,
        )
        executions += at_once
        spent = time.monotonic() - began
        if done.returncode or runs or spent > seconds:
            return Outcome(target, executions, spent, done.returncode != 0, done.stdout[-4000:])
    raise AssertionError("unreachable")


def run_python(target: str, seconds: int, runs: int) -> Outcome:
    command = [sys.executable, str(HERE / f"fuzz_{target}.py"), "--findings", str(FINDINGS)]
    command += ["--runs", str(runs)] if runs else ["--seconds", str(seconds)]
    began = time.monotonic()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, encoding="latin-1"
    )
    counted = re.search(r"(\d+) executions", done.stdout)
    executions = int(counted[1]) if counted else 0
    return Outcome(
        target, executions, time.monotonic() - began, done.returncode != 0, done.stdout[-4000:]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=0, help="for each target, instead of seconds")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help="one target")
    parser.add_argument("--smoke", action="store_true", help="libFuzzer or nothing")
    parser.add_argument("cmake", nargs="*", help="behind --: options for CMake")
    arguments = parser.parse_args()
    clang = find_clang()
    if arguments.smoke and not clang:
        print("skipped: no Clang with libFuzzer here, and none can be installed")
        return 0
    driver = f"libFuzzer, {clang}" if clang else "replay.cpp, for want of a Clang with libFuzzer"
    print(f"fuzzing with {driver}", flush=True)
    build(clang, arguments.cmake, arguments.jobs)
    FINDINGS.mkdir(parents=True, exist_ok=True)
    run_native = run_libfuzzer if clang else run_replay
    targets = {path.stem[5:]: run_native for path in sorted(HERE.glob("fuzz_*.cpp"))}
    if not arguments.smoke:
        targets |= {path.stem[5:]: run_python for path in sorted(HERE.glob("fuzz_*.py"))}
    if arguments.only:
        targets = {arguments.only: targets[arguments.only]}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = list(
            pool.map(
                lambda target: targets[target](target, arguments.seconds, arguments.runs), targets
            )
        )
    for outcome in outcomes:
        if outcome.failed:
            print(outcome.output)
    for outcome in outcomes:
        verdict = "FAILED" if outcome.failed else "nothing found"
        print(
            f"{outcome.target:16} {outcome.executions:>10} executions in {outcome.seconds:6.0f} s: "
            f"{verdict}"
        )
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
