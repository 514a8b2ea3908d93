"""Draws the rooms of the core and of the package, and holds the code to them.

The core's rooms are the folders of csrc/, from the lowest to the highest as CMakeLists.txt lists
their sources; what a room may include, and which of its headers others may, is in its README.md.
The package's rooms are the packages of python/shardahead/; the docstring of each says from which
it imports. Reads text, compiles and imports nothing.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MOST_LINES = 400
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
# The modules beside the rooms, on which all of them stand; and those that stand on all rooms.
GROUND, ROOF = "shardahead", ("__init__", "__main__")


@dataclass
class Room:
    """One folder: its name, the rooms that it may use, and of the core the headers that others
    may include.
    """

    name: str
    uses: tuple[str, ...] = ()
    public: tuple[str, ...] = ()
    used: set[str] = field(default_factory=set)
    files: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="the folder of the project")
    root: Path = parser.parse_args(arguments).root
    problems: list[str] = []
    for title, rooms in (
        ("csrc/", core_rooms(root, problems)),
        ("python/shardahead/", package_rooms(root, problems)),
    ):
        print(title)
        for room in reversed(rooms):
            uses = ", ".join(sorted(room.used)) or "nothing above the ground"
            print(f"  {room.name:<13} {room.files:>3} files  uses {uses}")
    for folder in ("benchmarks", "csrc", "python", "tests"):
        check_lengths(root, folder, problems)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def core_rooms(root: Path, problems: list[str]) -> list[Room]:
    """The rooms of csrc/, lowest first. What does not hold is added to `problems`."""
    listed = re.findall(r"^\s+(csrc/\S+\.cpp)\b", (root / "CMakeLists.txt").read_text(), re.M)
    order: list[str] = []
    for name in (source.split("/")[1] for source in listed):
        if name in order[:-1]:
            problems.append(f"CMakeLists.txt: sources of {name} stand in two places")
        elif name not in order:
            order.append(name)
    rooms = [_read_room(root / "csrc" / name, problems) for name in order]
    by_name = {room.name: room for room in rooms}
    files = sorted(
        path
        for path in (root / "csrc").rglob("*")
        if path.suffix in (".h", ".cpp") and "third_party" not in path.parts
    )
    for path in files:
        where = path.relative_to(root).as_posix()
        if path.suffix == ".cpp" and where not in listed:
            problems.append(f"{where}: not in CMakeLists.txt")
        if path.parent.name not in by_name or path.parent.parent.name != "csrc":
            problems.append(f"{where}: in no room")
            continue
        by_name[path.parent.name].files += 1
        for line, included in includes(path):
            _check_include(f"{where}:{line}", by_name[path.parent.name], included, rooms, problems)
    for path in sorted((root / "benchmarks" / "bench").glob("*.[hc]*")):
        for line, included in includes(path):
            name, _, header = included.rpartition("/")
            if name in by_name and header not in by_name[name].public:
                where = path.relative_to(root).as_posix()
                problems.append(f"{where}:{line}: {included} is for its own room")
    problems += [f"csrc: a circle of includes: {' -> '.join(c)}" for c in circles(root, files)]
    return rooms


def _read_room(folder: Path, problems: list[str]) -> Room:
    try:
        text = (folder / "README.md").read_text()
    except FileNotFoundError:
        problems.append(f"csrc/{folder.name}: no README.md")
        text = ""
    return Room(folder.name, _names(text, "Includes"), _names(text, "Others include"))


def _names(text: str, label: str) -> tuple[str, ...]:
    """What stands in backquotes in the paragraph that begins with `label`."""
    found = re.search(rf"^{label}:(.*?)(?:\n\n|\Z)", text, re.S | re.M)
    return tuple(re.findall(r"`([^`]+)`", found[1])) if found else ()


def includes(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of what `path` includes by quotes."""
    text = path.read_text()
    for match in _INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[1]


def _check_include(
    where: str, room: Room, included: str, rooms: Sequence[Room], problems: list[str]
) -> None:
    name, _, header = included.rpartition("/")
    names = [known.name for known in rooms]
    if name not in names:
        problems.append(f"{where}: {included} names no room")
    elif name != room.name:
        room.used.add(name)
        if names.index(name) > names.index(room.name):
            problems.append(f"{where}: {room.name} includes {included}, of a higher room")
        elif name not in room.uses:
            problems.append(f"{where}: {name} is not among what {room.name} includes")
        if header not in rooms[names.index(name)].public:
            problems.append(f"{where}: {included} is for its own room")


def circles(root: Path, files: Sequence[Path]) -> Iterator[list[str]]:
    """Includes that lead back to where they began, one for each place where that happens."""
    below = {
        path.relative_to(root / "csrc").as_posix(): [name for _, name in includes(path)]
        for path in files
    }
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> Iterator[list[str]]:
        if name in path:
            yield [*path[path.index(name) :], name]
            return
        if name in done:
            return
        for included in below.get(name, []):
            yield from visit(included, [*path, name])
        done.add(name)

    for name in below:
        yield from visit(name, [])


def package_rooms(root: Path, problems: list[str]) -> list[Room]:
    """The rooms of the package, lowest first. What does not hold is added to `problems`."""
    package = root / "python" / "shardahead"
    rooms = {
        path.parent.name: Room(
            path.parent.name,
            _names(ast.get_docstring(ast.parse(path.read_text())) or "", "Imports"),
        )
        for path in sorted(package.glob("*/__init__.py"))
    }
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(root).as_posix()
        name = path.parent.name
        if name != GROUND:
            rooms[name].files += 1
        for line, used in imports(path, tuple(rooms)):
            if name == GROUND and path.stem not in ROOF:
                problems.append(f"{where}:{line}: imports from {used}, which stands on it")
            elif name not in (GROUND, used):
                rooms[name].used.add(used)
                if used not in rooms[name].uses:
                    problems.append(f"{where}:{line}: {used} is not among what {name} imports")
    ordered: list[Room] = []
    while left := [room for room in rooms.values() if room not in ordered]:
        standing = [r for r in left if set(r.uses) <= {o.name for o in ordered}]
        if not standing:
            problems.append(f"a circle of imports: {', '.join(room.name for room in left)}")
            return [*ordered, *left]
        ordered += standing
    return ordered


def imports(path: Path, rooms: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Line and room of what `path` imports from rooms, wherever in it that is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == GROUND and len(parts) > 1 and parts[1] in rooms:
                yield node.lineno, parts[1]


def check_lengths(root: Path, folder: str, problems: list[str]) -> None:
    """No file of our own is too long to be read at a sitting."""
    for path in sorted((root / folder).rglob("*")):
        if path.suffix in (".cpp", ".h", ".py") and "third_party" not in path.parts:
            lines = len(path.read_text().splitlines())
            if lines >= MOST_LINES:
                where = path.relative_to(root).as_posix()
                problems.append(f"{where}: {lines} lines, and no file has {MOST_LINES}")


if __name__ == "__main__":
    sys.exit(main())
