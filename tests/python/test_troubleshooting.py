"""docs/troubleshooting.md: each message that it quotes is in the sources, and each that the log
gives is quoted. Reads files, and runs nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from conftest import REPOSITORY

ANY = "…"
PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
_FORMAT = re.compile(r"%[rsdg]|%\.\d[fg]")
_ADJOINING = re.compile(r'"\s*(?:\n\s*)?"')
_SHORTEST = 12  # characters of a message that tell it from others


def parts_of(message: str) -> list[str]:
    return [part.strip() for part in message.split(ANY) if re.search(r"\w", part)]


def text_of(node: ast.expr) -> str | None:
    if isinstance(node, ast.JoinedStr):
        values = (text_of(value) or ANY for value in node.values)
        return "".join(values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _FORMAT.sub(ANY, node.value)
    return None


@cache
def sources() -> tuple[str, ...]:
    """All texts of the package and of the core, what they fill in as `ANY`."""
    found = []
    for path in (REPOSITORY / "python" / "shardahead").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr | ast.Constant) and (text := text_of(node)):
                found.append(text)
    for path in (*(REPOSITORY / "csrc").rglob("*.cpp"), *(REPOSITORY / "csrc").rglob("*.h")):
        found += re.findall(r'"((?:[^"\\\n]|\\.)+)"', _ADJOINING.sub("", path.read_text()))
    return tuple(found)


def logged() -> Iterator[str]:
    """What the package gives to the log at WARNING and above, as it stands in the source."""
    for path in (REPOSITORY / "python" / "shardahead").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in ("warning", "error", "exception", "_warn_once", "_say_once") and node.args:
                text = text_of(node.args[0])
                if text and parts_of(text):
                    yield text


def test_messages_are_found() -> None:
    assert len(QUOTED) > 50
    assert len(list(logged())) > 15


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_sources(message: str) -> None:
    parts = parts_of(message)
    assert max(map(len, parts)) >= _SHORTEST or message == "incomplete: …"
    missing = [part for part in parts if not any(part in source for source in sources())]
    assert not missing


@pytest.mark.parametrize("text", sorted(set(logged())))
def test_what_the_log_warns_of_is_explained(text: str) -> None:
    longest = max(parts_of(text), key=len)
    assert any(
        longest in message or all(part in text for part in parts_of(message)) for message in QUOTED
    ), f"docs/troubleshooting.md does not tell of: {text}"
