"""The fenced blocks of the documents, and what each needs. Reads files, and runs nothing.

A block begins with three backticks and its language; `<!-- needs: WHAT -->` on the line before says
that it cannot be run by the tests, and why.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from conftest import REPOSITORY

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_NEEDS = re.compile(r"<!-- needs: ([^\n]+) -->\n\s*\Z")
_KEYWORDS = {"if", "then", "else", "fi", "while", "until", "do", "done", "!", "{", "}"}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Block:
    """One of `document`, at `line`. needs: why it is not run, "" where it is."""

    document: str
    line: int
    language: str
    code: str
    needs: str

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    found = [REPOSITORY / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
    return [*found, *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks() -> list[Block]:
    return [
        block
        for path in documents()
        for block in blocks_of(path.read_text("utf-8"), str(path.relative_to(REPOSITORY)))
    ]


def blocks_of(text: str, document: str) -> list[Block]:
    found = []
    for match in _FENCE.finditer(text):
        needs = _NEEDS.search(text[: match.start()])
        indent = len(match["indent"])
        code = "".join(line[indent:] for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(document, line, match["language"], code, needs[1] if needs else ""))
    return found


def script_of(block: Block) -> str:
    """What is typed: of a console the lines behind the prompt, with those that continue them."""
    if block.language != "console":
        return block.code
    typed: list[str] = []
    for line in block.code.splitlines():
        if line.startswith("$ "):
            typed.append(line[2:])
        elif typed and typed[-1].endswith("\\"):
            typed.append(line)
    return "\n".join(typed) + "\n"


def shardahead_commands(script: str) -> list[list[str]]:
    """The arguments of each `shardahead` in a script, also behind variables and launchers."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # quotes over several lines
            continue
        for at, word in enumerate(words):
            before = words[at - 1] if at else ""
            if not (word == "shardahead" or word.endswith("/bin/shardahead")):
                continue
            if before == "-m" or not at or _begins_a_command(words[:at]):
                found.append(_until_the_end(words[at + 1 :]))
    return found


def programs(script: str) -> list[str]:
    """What each command of a script begins with, behind variables that are set for it."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=False, punctuation_chars="|&;()")
        lexer.whitespace_split = True
        begins = True
        for word in lexer:
            if set(word) <= set("|&;()") or word in _KEYWORDS:
                begins = True
            elif begins and not _ASSIGNMENT.match(word):
                found.append(word)
                begins = False
    return found


def _begins_a_command(before: list[str]) -> bool:
    last = before[-1]
    launched = before[0] in ("srun", "timeout", "nice", "exec", "sudo", "torchrun")
    begins = set(last) <= set("|&;(") or last in ("do", "then", "-")
    return launched or begins or bool(_ASSIGNMENT.match(last))


def _until_the_end(words: list[str]) -> list[str]:
    for at, word in enumerate(words):
        if set(word) <= set("|&;<>()"):
            numbered = at and word[0] in "<>" and words[at - 1] == "2"  # of `2> file`
            return words[: at - 1] if numbered else words[:at]
    return words
