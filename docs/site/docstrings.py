"""Docstrings as Markdown lists: `name: what it is`, which the package writes for arguments.

An extension of griffe, which mkdocstrings uses. The text stays as it is.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ENTRY = re.compile(r"^([a-z_]+(?:, [a-z_]+)*): ")
ITEM = re.compile(r"^- ")


class Entries(griffe.Extension):
    """Each entry becomes an item; what follows an entry and is indented belongs to it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_items(obj.docstring.value)


def with_items(text: str) -> str:
    lines: list[str] = []
    in_list = False
    for line in text.splitlines():
        entry = ENTRY.match(line)
        if entry:
            if not in_list and lines and lines[-1]:
                lines.append("")
            names = ", ".join(f"**{name}**" for name in entry[1].split(", "))
            line = f"- {names}: {line[entry.end() :]}"
        elif in_list and line and not line.startswith(" "):
            lines.append("")
        in_list = bool(entry) or (in_list and (not line or line.startswith(" ")))
        lines.append(line)
    return "\n".join(lines)
