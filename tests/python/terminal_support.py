"""The command at a real pseudo-terminal of a given size, and what is seen there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conftest import HANG_SECONDS, StrPath, clean_environment, finish

COMMAND = "import sys; from shardahead.command.cli import main; sys.exit(main(sys.argv[1:]))"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Shown:
    """What a terminal was sent, by standard output and error both."""

    status: int
    raw: str

    @property
    def lines(self) -> list[str]:
        """Without colours and movements of the cursor; each state of a line by itself."""
        text = _ESCAPES.sub("", self.raw).replace("\r\n", "\n")
        return [line.rstrip() for line in re.split(r"[\r\n]", text)]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def start(
    *words: StrPath, script: str = COMMAND, env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """The command, on pipes unless told otherwise."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    variables = {**clean_environment(), "TERM": "xterm-256color", **(env or {})}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        if name not in (env or {}):
            variables.pop(name, None)
    return subprocess.Popen([sys.executable, "-c", script, *words], env=variables, **options)


def run(*words: StrPath, **options: Any) -> subprocess.CompletedProcess[str]:
    return finish(start(*words, **options))


class Terminal:
    """Its other end is read here, until the last process that has it open has ended."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._master, self._slave = pty.openpty()
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, size)
        self._seen = b""

    def start(
        self, *words: StrPath, streams: Sequence[str] = ("stdout", "stderr"), **options: Any
    ) -> subprocess.Popen[str]:
        """The command with these of its streams, and its input, at the terminal."""
        at_terminal = dict.fromkeys(("stdin", *streams), self._slave)
        process = start(*words, **{**options, **at_terminal})
        os.close(self._slave)
        return process

    def read_until(self, pattern: str) -> str:
        """All that was shown so far, once that matches."""
        while not re.search(pattern, _ESCAPES.sub("", self._seen.decode(errors="replace"))):
            assert self._read(), f"it has ended without {pattern}: {self._seen!r}"
        return self._seen.decode(errors="replace")

    def shown(self, process: subprocess.Popen[str]) -> Shown:
        """All of it, at the end."""
        while self._read():
            pass
        os.close(self._master)
        return Shown(process.wait(HANG_SECONDS), self._seen.decode(errors="replace"))

    def _read(self) -> bool:
        try:
            part = os.read(self._master, 4096)
        except OSError:  # EIO: the other end is closed
            return False
        self._seen += part
        return bool(part)


def at_terminal(*words: StrPath, columns: int = 80, rows: int = 24, **options: Any) -> Shown:
    terminal = Terminal(columns, rows)
    return terminal.shown(terminal.start(*words, **options))
