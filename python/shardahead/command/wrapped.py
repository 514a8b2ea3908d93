"""Lines of a page that is 80 columns wide: a label, then text that goes on below itself.

Paths, and whatever else has no blank, are never cut: they are there to be copied; options of a
mount, which are not, are. Commands go on after a backslash. Pure functions.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from shardahead.units import printable

WIDTH = 80
_NUMBER_AND_UNIT = re.compile(r"(\d) (?=(?:[KMGT]?i?B|MB/s|m?s|%|files?)(?:\W|$))")
# What a shell takes for one word.
_SHELL_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])+|\S+""")


def labelled(label: str, text: str, label_width: int) -> list[str]:
    """`text` in lines that begin `label_width` columns in, the first after the label."""
    lines = _filled(printable(text), WIDTH - label_width) or [""]
    labels = [label, *[""] * (len(lines) - 1)]
    return [
        f"{label:<{label_width}}{line}".rstrip() for label, line in zip(labels, lines, strict=True)
    ]


def labelled_list(label: str, words: Sequence[str], label_width: int) -> list[str]:
    """The same of words that stand between commas, without blanks."""
    width = WIDTH - label_width
    lines = [""]
    for index, word in enumerate(words):
        text = printable(word) + ("," if index + 1 < len(words) else "")
        if lines[-1] and len(lines[-1]) + len(text) > width:
            lines.append("")
        pieces = [text[at : at + width] for at in range(0, len(text), width)]
        lines[-1] += pieces[0] if pieces else ""
        lines += pieces[1:]
    labels = [label, *[""] * (len(lines) - 1)]
    return [
        f"{label:<{label_width}}{line}".rstrip() for label, line in zip(labels, lines, strict=True)
    ]


def labelled_command(label: str, command: str, label_width: int) -> list[str]:
    """The same of a command, or of a rule of udev: both go on after a backslash."""
    lines = list(_broken(printable(command), WIDTH - label_width - 2))
    continued = [f"{line} \\" for line in lines[:-1]] + lines[-1:]
    labels = [label, *[""] * (len(lines) - 1)]
    return [f"{label:<{label_width}}{line}" for label, line in zip(labels, continued, strict=True)]


def _filled(text: str, width: int) -> list[str]:
    """A number and its unit stay together."""
    held = _NUMBER_AND_UNIT.sub("\\1\u00a0", text)
    lines = textwrap.wrap(held, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines]


def _broken(command: str, width: int) -> Iterator[str]:
    line = ""
    for word in _SHELL_WORD.findall(command):
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = "  "
        line += word if not line.strip() else f" {word}"
    yield line
