"""Runs clang-tidy over the project's own sources in a compilation database, some at a time.

Each of them once, however many targets it is part of: clang-tidy would look at it for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The static analyzer follows every CHECK of a test both ways: two thirds of the time for a test,
# nine tenths for the simulation. Both run under sanitizers as well.
TESTS = Path(__file__).resolve().parent
IN_TESTS = ["--checks=-clang-analyzer-*"]
# The database is that of a build with GCC, which has warnings of its own to be switched off.
OF_GCC = ["--extra-arg=-Wno-unknown-warning-option"]


def main(clang_tidy: str, build_folder: str, jobs: str, states: str) -> int:
    # The analyzer gives up on a function after so many. With 225,000, its default, the product
    # takes half as long again as with 100,000, and nothing more was found.
    config = ("-Xclang", "-analyzer-config", "-Xclang", f"max-nodes={states}")
    budget = [f"--extra-arg={word}" for word in config]
    database = Path(build_folder) / "compile_commands.json"
    entries = {
        entry["file"]: entry
        for entry in json.loads(database.read_text())
        if "third_party" not in entry["file"]
    }
    once = Path(build_folder) / "once"
    once.mkdir(exist_ok=True)
    (once / database.name).write_text(json.dumps(list(entries.values())))

    def check(source: str) -> tuple[str, int, str]:
        command = [clang_tidy, "--quiet", "-p", str(once), *OF_GCC, source]
        if source.endswith("_test.cpp") or TESTS in Path(source).parents:
            command += IN_TESTS
        else:
            command += budget
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return source, done.returncode, done.stdout + done.stderr

    failed = 0
    with ThreadPoolExecutor(int(jobs)) as pool:
        for source, status, output in pool.map(check, sorted(entries)):
            if status:
                failed += 1
                print(f"{source}\n{output}")
    print(f"clang-tidy: {len(entries)} files, {failed} with findings")
    return 1 if failed or not entries else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
