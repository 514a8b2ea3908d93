"""Runs clang-tidy over the project's own sources in a compilation database, some at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The static analyzer follows every CHECK of a test both ways, two thirds of the time for a test.
# The tests run under sanitizers as well.
IN_TESTS = ["--checks=-clang-analyzer-*"]


def main(clang_tidy: str, build_folder: str, jobs: str) -> int:
    entries = json.loads((Path(build_folder) / "compile_commands.json").read_text())
    sources = sorted({entry["file"] for entry in entries if "third_party" not in entry["file"]})

    def check(source: str) -> tuple[str, int, str]:
        command = [clang_tidy, "--quiet", "-p", build_folder, source]
        if source.endswith("_test.cpp"):
            command += IN_TESTS
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return source, done.returncode, done.stdout + done.stderr

    failed = 0
    with ThreadPoolExecutor(int(jobs)) as pool:
        for source, status, output in pool.map(check, sources):
            if status:
                failed += 1
                print(f"{source}\n{output}")
    print(f"clang-tidy: {len(sources)} files, {failed} with findings")
    return 1 if failed or not sources else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
