"""What the documentation site is made of: its navigation, its pictures, the forms for issues.

Builds nothing: `make docs` does, and looks at links, anchors and what a browser would fetch.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
FORMS = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
CHECK = DOCS / "site" / "check_site.py"


def test_the_picture_of_the_figures_is_that_of_the_table() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "site" / "pictures.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_page_is_in_the_navigation() -> None:
    text = (REPOSITORY / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    named = re.findall(r": ([\w/-]+\.md)$", text, re.MULTILINE)
    of_the_root = {"changelog.md", "contributing.md", "security.md"}
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert sorted(named) == sorted(pages | of_the_root)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_is_one(form: Path) -> None:
    yaml = pytest.importorskip("yaml")
    document: dict[str, Any] = yaml.safe_load(form.read_text())
    if form.name == "config.yml":
        return
    assert {"name", "description", "body"} <= document.keys()
    ids = [field["id"] for field in document["body"] if field["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    doctor = next(field for field in document["body"] if field.get("id") == "doctor")
    assert doctor["attributes"]["label"].startswith("shardahead doctor --json")
    for named in re.findall(r"[\w/-]+\.md\b", form.read_text()):
        assert (REPOSITORY / named).is_file()


def checked(folder: Path, pages: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in pages.items():
        (folder / name).write_text(text)
    command = [sys.executable, str(CHECK), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_site_that_is_right(tmp_path: Path) -> None:
    done = checked(
        tmp_path,
        {
            "a.html": "<a href='b.html#x'></a><a href='https://example.com'></a><p>a - b</p>",
            "b.html": "<h1 id='x'></h1><script src='c.js'></script>",
            "c.js": "",
        },
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "https://example.com" in done.stdout


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("<a href='c.html'></a>", "which is not there"),
        ("<a href='#x'></a>", "which has no such anchor"),
        ("<script src='https://example.com/a.js'></script>", "is fetched from elsewhere"),
        ("<link rel='preconnect' href='https://example.com'>", "is fetched from elsewhere"),
        ("<img src='//example.com/a.png'>", "is fetched from elsewhere"),
        ("<p>these:\n- a\n- b</p>", "a list without an empty line"),
    ],
)
def test_what_is_wrong_with_a_site_is_found(tmp_path: Path, page: str, problem: str) -> None:
    done = checked(tmp_path, {"a.html": page})
    assert done.returncode == 1
    assert problem in done.stderr


def test_a_style_sheet_that_fetches(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@font-face { src: url(https://example.com/a.woff2) }")
    done = checked(tmp_path, {"a.html": ""})
    assert done.returncode == 1
    assert "a.css: fetches from elsewhere" in done.stderr


def test_entries_of_a_docstring_become_items() -> None:
    pytest.importorskip("griffe")
    sys.path.insert(0, str(DOCS / "site"))
    try:
        from docstrings import with_items  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    text = "Does it.\n\nfiles: which\n    ones.\na, b: two.\nRaises: none.\n\nThe end."
    assert with_items(text).splitlines() == [
        "Does it.",
        "",
        "- **files**: which",
        "    ones.",
        "- **a**, **b**: two.",
        "",
        "Raises: none.",
        "",
        "The end.",
    ]
