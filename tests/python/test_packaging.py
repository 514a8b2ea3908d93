"""What makes releases: the checks find what is planted, and the lists of Pythons are one list.

Builds nothing: `make interpreters` does.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def script(name: str) -> ModuleType:
    """A file of tests/ as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f"tests/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def interpreters() -> ModuleType:
    return script("interpreters")


@pytest.fixture
def project() -> Any:
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def test_the_pythons_are_the_same_wherever_they_are_listed(
    project: Any, interpreters: ModuleType
) -> None:
    tags = [f"cp{version.replace('.', '')}-*" for version in interpreters.SUPPORTED]
    assert project["tool"]["cibuildwheel"]["build"] == tags
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["project"]["classifiers"]))
    assert classified == [name for name in interpreters.SUPPORTED if not name.endswith("t")]
    assert project["project"]["requires-python"] == f">={classified[0]}"


def test_each_smoke_test_is_there(interpreters: ModuleType) -> None:
    for name in interpreters.SMOKE:
        assert (REPOSITORY / f"tests/python/test_{name}.py").exists()


def python(folder: Path, name: str, says: str, status: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_interpreters_are_found_by_what_they_say(
    interpreters: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "named"
    versions = tmp_path / "pyenv" / "versions"
    python(tmp_path / "path", "python3.10", "pyenv: not here", status=127)
    python(tmp_path / "path", "python3.12", "3.13")  # lies about its name
    python(named, "python3.14", "3.14t")
    threaded = python(named / "bin", "python3.14t", "3.14t")
    old = python(versions / "3.10.13" / "bin", "python3.10", "3.10")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))  # where there may be others
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PYTHON_FOLDERS", f"{named}:{tmp_path / 'none'}")
    monkeypatch.setattr(sys, "executable", os.devnull)
    found = {one.version: one.path for one in interpreters.find(["3.10", "3.12", "3.14", "3.14t"])}
    assert found == {"3.10": old, "3.14t": threaded}
    assert interpreters.chosen(["newest", "oldest", "3.14t"]) == [
        interpreters.Interpreter("3.14t", threaded),
        interpreters.Interpreter("3.10", old),
    ]


def test_an_interpreter_is_named_by_its_path(
    interpreters: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One that was built from source, say, of whatever version."""
    own = python(tmp_path / "built" / "bin", "python3.99t", "3.99t")
    broken = python(tmp_path / "broken", "python3", "no ensurepip", status=1)
    assert interpreters.chosen([str(own)]) == [interpreters.Interpreter("3.99t", own)]
    monkeypatch.setattr(interpreters, "unpacked_sdist", lambda *_: sys.exit("far enough"))
    with pytest.raises(SystemExit, match="far enough"):
        interpreters.main(["--pythons", str(own), "--output", str(tmp_path)])
    assert capsys.readouterr().out == f"found: 3.99t: {own}\n"
    for path in (broken, tmp_path / "none" / "python3"):
        with pytest.raises(SystemExit, match=f"{path}: no Python"):
            interpreters.chosen([str(path)])


def names_of(requirements: list[str]) -> set[str]:
    return {re.split("[=<>]", each)[0] for each in requirements}


def test_all_tests_get_all_that_they_import(interpreters: ModuleType) -> None:
    smoke = names_of(interpreters.test_requirements("smoke"))
    everything = names_of(interpreters.test_requirements("all"))
    assert smoke == {
        "pytest",
        "pytest-timeout",
        "pytest-xdist",
        "pytest-rerunfailures",
        "hypothesis",
    }
    assert everything > smoke | {"torch", "safetensors", "pyyaml", "jsonschema", "transformers"}
    assert not everything & {
        "ruff",
        "mypy",
        "clang-tidy",
        "clang-format",
        "mkdocs",
        "ninja",
        "cmake",
    }


def test_what_has_no_wheel_for_a_python_is_said_and_the_rest_is_installed(
    interpreters: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pip = tmp_path / "python"
    pip.write_text(
        f'#!/bin/sh\ncase "$*" in *torch*) exit 1;; esac\necho "$*" >> {tmp_path}/done\n'
    )
    pip.chmod(0o755)
    interpreters.install(pip, ["numpy", "torch==1", "rich"])
    assert capfd.readouterr().out.endswith("no wheel for this Python: torch==1\n")
    installed = [line.split()[-1] for line in (tmp_path / "done").read_text().splitlines()]
    assert installed == ["numpy", "rich"]
    interpreters.install(pip, ["numpy", "rich"])
    assert capfd.readouterr().out == ""


def test_where_none_is_found_it_fails(
    interpreters: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interpreters, "find", lambda _versions: [])
    assert interpreters.main(["--pythons", "3.14t"]) == 1
    assert capsys.readouterr().out == "skipped, not found here: 3.14t\n"


def test_a_source_distribution_that_lacks_or_swallows_files_is_found() -> None:
    check = script("sdist_check")
    kept = {"CMakeLists.txt", "csrc/base/error.h", "LICENSE", "tests/rooms.py"}
    whole = {"CMakeLists.txt", "csrc/base/error.h", "LICENSE", "PKG-INFO"}
    assert check.problems_of(whole, kept, 1000) == []
    assert check.problems_of(whole - {"csrc/base/error.h"}, kept, 1000) == [
        "is missing: csrc/base/error.h"
    ]
    assert check.problems_of(whole | {".venv/bin/python"}, kept, 1000) == [
        "does not belong there: .venv/bin/python"
    ]
    assert check.problems_of(whole, kept, 10**8) == ["100000000 bytes, more than 2097152"]


def test_a_release_has_one_version_with_a_dated_section() -> None:
    check = script("release_check")
    changelog = "## Unreleased\n\n## 1.2.0 - 2026-11-29\n"
    assert check.version_of('name = "a"\nversion = "1.2.0"\n') == "1.2.0"
    assert check.problems_of("1.2.0", changelog, "v1.2.0") == []
    assert check.problems_of("1.2.0", changelog) == []
    assert check.problems_of("1.2.0", changelog, "v1.2.1") == [
        "the tag is v1.2.1, the version 1.2.0"
    ]
    assert check.problems_of("1.2.1", changelog) == [
        "CHANGELOG.md has no section '## 1.2.1 - YYYY-MM-DD'"
    ]
    assert check.problems_of("1.2", "## 1.2 - 2026-11-29") == ["1.2 is no version of a release"]


def test_this_checkout_may_become_a_release() -> None:
    assert script("release_check").main() == 0


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_is_there(path: Path) -> None:
    workflow = pytest.importorskip("yaml").safe_load(path.read_text())
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    commands = []
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 90, name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            commands.append(step.get("run", ""))
    text = "\n".join(commands)
    made = re.findall(r"\bmake ([a-z-]+)", text)
    assert set(made) <= set(targets)
    files = re.findall(r"(?:tests/\w+\.py|\.ci/\w+)", text)
    assert made or files
    for file in files:
        assert (REPOSITORY / file).exists()


def test_only_a_tag_is_published_and_only_that_job_may() -> None:
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/release.yml").read_text())["jobs"]
    allowed = [name for name, job in jobs.items() if "permissions" in job]
    assert allowed == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    assert jobs["publish"]["needs"] == "check"
    assert jobs["check"]["needs"] == ["source", "wheels"]


def test_a_release_is_tried_with_what_it_says_that_it_needs(project: Any) -> None:
    """A list of them beside the package's own would grow old."""
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/release.yml").read_text())["jobs"]
    commands = "\n".join(step.get("run", "") for step in jobs["check"]["steps"])
    installed = re.findall(r"(?m)^fresh/bin/python -m pip install (.*)$", commands)
    assert [words.split()[-1] for words in installed] == ["shardahead"] * 2
    assert "--no-deps" not in installed[-1]
    for needed in project["project"]["dependencies"]:
        assert re.split(r"[<>=]", needed)[0] not in commands
    assert "pip check" in commands
    assert "completion bash" in commands  # which asks for more than --version does
