"""Compiles the core and shardahead-bench for elsewhere: other C and C++ libraries and processors.

With the Clang, libc++, glibc headers of any version and musl of the package `ziglang`, which is
installed into a virtual environment of its own. Links and runs nothing. Where the package cannot be
had it says so and succeeds.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WARNINGS = [
    *("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wsign-conversion"),
    *("-Wnon-virtual-dtor", "-Woverloaded-virtual", "-Wthread-safety", "-Werror"),
]


def compiler(folder: Path) -> list[str] | None:
    """The command of Zig's Clang, installed in `folder` at the first call; None without it."""
    python = folder / "venv" / "bin" / "python"
    if not (folder / ".ready").exists():
        venv.create(folder / "venv", clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "ziglang>=0.13"]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip() or "pip failed").splitlines()[-1]
            print(f"skipped: the package ziglang cannot be installed: {last}")
            return None
        (folder / ".ready").touch()
    return [str(python), "-m", "ziglang", "c++"]


def as_compilers(command: Sequence[str], target: str, folder: Path) -> dict[str, str]:
    """Variables by which a build takes Zig's Clang for `target`: CMake wants programs by path."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "cache")}
    for variable, language in (("CC", "cc"), ("CXX", "c++")):
        program = folder / language
        words = shlex.join([*command[:-1], language, "-target", target])
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o755)
        found[variable] = str(program)
    return found


def sources() -> list[Path]:
    found = [*REPOSITORY.glob("csrc/*/*.cpp"), *REPOSITORY.glob("benchmarks/bench/*.cpp")]
    return [
        path for path in found if path.parent.name != "bindings" and not path.stem.endswith("_test")
    ]


def precompiled_headers() -> list[str]:
    """Those of the core, as CMakeLists.txt names them."""
    text = (REPOSITORY / "CMakeLists.txt").read_text()
    found = re.search(r"target_precompile_headers\(shardahead_core PRIVATE([^)]*)\)", text)
    if found is None:
        raise ValueError("CMakeLists.txt names no precompiled headers of shardahead_core")
    return found[1].split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="as Zig names it: x86_64-linux-musl, aarch64-linux-gnu.2.28")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--precompiled",
        action="store_true",
        help="with the precompiled headers of CMakeLists.txt, as in a build: faster by half and "
        "more, but what a file forgets to include is not found",
    )
    options = parser.parse_args()
    folder = REPOSITORY / "build" / "zig"
    folder.mkdir(parents=True, exist_ok=True)
    command = compiler(folder)
    if command is None:
        return 0
    objects = folder / options.target
    objects.mkdir(exist_ok=True)
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(folder / "cache")}
    flags = ["-target", options.target, "-std=c++20", "-fPIC", "-pthread", "-I", "csrc"]
    flags += ["-I", "benchmarks/bench", "-isystem", "benchmarks/bench/third_party"]
    flags += ["-isystem", "csrc/third_party"]
    flags += ['-DSHARDAHEAD_VERSION="0"', "-DCXXOPTS_NO_REGEX=true"]
    flags += ["-g0", "-fno-sanitize=all"]  # of which Zig's defaults are the opposite; nothing runs

    def passes(*arguments: str | Path) -> bool:
        done = subprocess.run(
            [*command, *flags, *WARNINGS, *arguments],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
        )
        sys.stdout.write(done.stderr)
        return done.returncode == 0

    headers: list[str | Path] = []
    if options.precompiled:
        header, made = objects / "precompiled.h", objects / "precompiled.pch"
        header.write_text("".join(f"#include {name}\n" for name in precompiled_headers()))
        if not passes("-x", "c++-header", header, "-o", made):
            return 1
        headers = ["-include-pch", made]

    def compiles(path: Path) -> bool:
        output = objects / f"{path.parent.name}-{path.stem}.o"
        return passes(*headers, "-c", path.relative_to(REPOSITORY), "-o", output)

    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(compiles, sources()))
    print(f"{options.target}: {sum(results)} of {len(results)} files compiled")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
