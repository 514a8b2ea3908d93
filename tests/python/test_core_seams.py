"""The linter that keeps the core's upper rooms behind their seams finds what is planted."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from conftest import REPOSITORY


@pytest.fixture
def seams() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seams_of_core", REPOSITORY / "tests/seams.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def core(tmp_path: Path, seams: ModuleType) -> Path:
    for room in seams.ROOMS:
        shutil.copytree(REPOSITORY / "csrc" / room, tmp_path / room)
    return tmp_path


def test_the_core_as_it_is_goes_past_no_seam(seams: ModuleType, core: Path) -> None:
    assert seams.check(core) == []


@pytest.mark.parametrize(
    "planted",
    [
        "const int got = ::open(path, O_RDONLY);",
        "void* at = ::mmap(nullptr, 1, 0, 0, -1, 0);",
        "if (::process_vm_readv(1, a, 1, b, 1, 0) < 0) return;",
        "std::thread([] {}).detach();",
        "const auto now = std::chrono::steady_clock::now();",
        "pthread_self();",
        "Condition changed;",
        "auto& io = system_file_io();",
        "std::this_thread::sleep_for(slice);",
    ],
)
def test_a_planted_call_is_found(seams: ModuleType, core: Path, planted: str) -> None:
    file = core / "reader/piece_reader.cpp"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:20], planted, *lines[20:]]))
    (finding,) = seams.check(core)
    assert finding.startswith(f"{file}:21: ")


def test_words_are_no_calls(seams: ModuleType) -> None:
    assert seams.found_in('auto f = File::open(io, p);  // as ::open( does\nf("::mmap(");') == []


def test_an_exception_that_no_one_needs_is_found(seams: ModuleType, core: Path) -> None:
    memory = core / "reader/tensor_memory.cpp"
    memory.write_text(memory.read_text().replace("::madvise(", "advise("))
    assert seams.check(core) == ["tests/seams.py: reader/tensor_memory.cpp makes no use of madvise"]
