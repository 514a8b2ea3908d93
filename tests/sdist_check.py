"""What a source distribution holds: all that a wheel is built from, and nothing that was built.

Reads the archive and the list of files that git keeps; builds nothing. tests/interpreters.py builds
wheels from what the archive unpacks to.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

REPOSITORY = Path(__file__).resolve().parents[1]
#: What a wheel is built from, and what says to people what it is.
NEEDED = (
    *("CMakeLists.txt", "pyproject.toml", "csrc", "python", "benchmarks/bench"),
    *("LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "docs"),
)
MOST_BYTES = 2 * 1024 * 1024


def kept_files(root: Path) -> set[str]:
    """The files below `root` that git keeps."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.split("\0") if name and (root / name).exists()}


def problems_of(names: set[str], kept: set[str], size_bytes: int) -> list[str]:
    """What is wrong with an archive of these names, its own first folder left out."""
    needed = {
        name for name in kept if any(PurePosixPath(name).is_relative_to(part) for part in NEEDED)
    }
    return [
        *(f"is missing: {name}" for name in sorted(needed - names)),
        # Written by the build backend.
        *(f"does not belong there: {name}" for name in sorted(names - kept - {"PKG-INFO"})),
        *([f"{size_bytes} bytes, more than {MOST_BYTES}"] if size_bytes > MOST_BYTES else []),
    ]


def main(archive: str) -> int:
    with tarfile.open(archive) as packed:
        members = packed.getmembers()
    (top,) = {member.name.split("/")[0] for member in members}
    names = {member.name.removeprefix(f"{top}/") for member in members if member.isfile()}
    problems = problems_of(names, kept_files(REPOSITORY), Path(archive).stat().st_size)
    problems += [f"is no file: {one.name}" for one in members if not one.isfile()]
    if len({member.mtime for member in members}) != 1:
        problems.append("carries the times of this checkout: it is not the same when built again")
    for problem in problems:
        print(f"{archive}: {problem}", file=sys.stderr)
    print(f"source distribution: {len(names)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
