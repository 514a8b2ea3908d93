"""The rooms of core and package: the check passes, and finds what is planted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

CHECK = REPOSITORY / "tests" / "rooms.py"


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECK), "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "third_party")
    for folder in ("csrc", "python/shardahead", "benchmarks/bench"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=ignore)
    shutil.copy(REPOSITORY / "CMakeLists.txt", tmp_path)
    return tmp_path


def test_the_rooms_stand_on_floors() -> None:
    done = check(REPOSITORY)
    assert (done.returncode, done.stderr) == (0, "")
    floors = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    core = ["bindings", "reader", "engine", "board", "plan", "node", "base"]
    assert floors[: len(core)] == core
    assert set(floors[len(core) :]) == {
        *("integrations", "checkpointing", "command", "weights"),
        *("cluster", "replica", "prefetch", "node", "checkpoint"),
    }


@pytest.mark.parametrize(
    ("file", "line", "problem"),
    [
        ("csrc/node/mount.cpp", '#include "engine/engine.h"', "of a higher room"),
        ("csrc/reader/piece_reader.h", '#include "board/claims.h"', "not among what reader"),
        ("csrc/engine/worker.cpp", '#include "board/board_memory.h"', "is for its own room"),
        ("csrc/plan/plan.h", '#include "window.h"', "names no room"),
        ("csrc/base/error.h", '#include "base/report.h"', "a circle of includes"),
        ("csrc/stray.cpp", "", "in no room"),
        ("csrc/node/forgotten.cpp", "", "not in CMakeLists.txt"),
        ("csrc/node/long.h", "\n" * 400, "402 lines"),
        ("benchmarks/bench/run.cpp", '#include "board/life.h"', "is for its own room"),
        (
            "python/shardahead/checkpoint/shards.py",
            "from shardahead.prefetch import start",
            "prefetch is not among what checkpoint imports",
        ),
        (
            "python/shardahead/node/mounts.py",
            "def later():\n    import shardahead.command.cli",
            "command is not among",
        ),
        (
            "python/shardahead/units.py",
            "from shardahead.node.memory import memory_budget",
            "which stands on it",
        ),
    ],
)
def test_what_is_planted_is_found(project: Path, file: str, line: str, problem: str) -> None:
    assert check(project).returncode == 0
    with (project / file).open("a") as planted:
        planted.write(f"\n{line}\n")
    done = check(project)
    assert done.returncode == 1
    assert problem in done.stderr
    assert file in done.stderr or "circle" in problem


def test_rooms_are_listed_from_the_lowest(project: Path) -> None:
    build_file = project / "CMakeLists.txt"
    lines = build_file.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if "csrc/board/" in line)
    last = next(i for i, line in enumerate(lines) if "csrc/engine/" in line)
    lines.insert(first, lines.pop(last))
    build_file.write_text("\n".join(lines))
    done = check(project)
    assert done.returncode == 1
    assert "sources of engine stand in two places" in done.stderr
    assert "csrc/board/board.cpp" not in done.stderr


def test_packages_that_stand_on_each_other_are_a_circle(project: Path) -> None:
    package = project / "python/shardahead/checkpoint/__init__.py"
    package.write_text('"""Planted.\n\nImports: `weights`.\n"""\n')
    done = check(project)
    assert done.returncode == 1
    assert "a circle of imports" in done.stderr
