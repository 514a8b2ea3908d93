"""Whether the files of this checkout may become a release: one version, with a dated section in the
changelog, and the tag, if one is given, of that name. Builds nothing.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_VERSION = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)


def version_of(pyproject: str) -> str:
    """The project's version, by the first such line: tomllib is not in Python 3.10."""
    found = _VERSION.search(pyproject)
    if found is None:
        raise ValueError("pyproject.toml has no version")
    return found[1]


def problems_of(version: str, changelog: str, tag: str = "") -> list[str]:
    """What keeps this version from being released."""
    problems = []
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        problems.append(f"{version} is no version of a release")
    dated = rf"^## {re.escape(version)} - \d{{4}}-\d{{2}}-\d{{2}}$"
    if not re.search(dated, changelog, re.MULTILINE):
        problems.append(f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD'")
    if tag and tag != f"v{version}":
        problems.append(f"the tag is {tag}, the version {version}")
    return problems


def main(tag: str = "") -> int:
    version = version_of((REPOSITORY / "pyproject.toml").read_text())
    problems = problems_of(version, (REPOSITORY / "CHANGELOG.md").read_text(), tag)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"release check of {version}: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
