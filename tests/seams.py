"""The upper rooms of the core reach the system through its seams alone: files by FileIo, the clock
and threads by Runtime. So the simulation sees all that they do. Run by `make lint`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOMS = ("engine", "reader")
# A call by its global name is one of the system; the rest goes around the seams by way of the
# standard library, or takes the system's side of one.
PAST = re.compile(
    r"(?<![\w>])::\s*(?P<call>[a-z_]\w*)\s*\("
    r"|(?P<thread>\bstd::(?:jthread|thread|async|this_thread|condition_variable\w*)\b)"
    r"|(?P<clock>\b\w+_clock::now)"
    r"|(?P<pthread>\bpthread_\w+)"
    r"|(?P<wait>\bCondition\b)"
    r"|(?P<seam>\bsystem_(?:runtime|file_io))\("
)
NOT_CODE = re.compile(r'//[^\n]*|"(?:\\.|[^"\\\n])*"')

# Memory without a file behind it: no server to wait for, and no fault to plant but its want, which
# tests give rise to by asking for more than there is.
_ANONYMOUS = "memory without a file"
_DEFAULT = "for callers that have no runtime of their own"
# Of each file what it may, and why.
ALLOWED = {
    "reader/tensor_memory.cpp": {"mmap": _ANONYMOUS, "munmap": _ANONYMOUS, "madvise": _ANONYMOUS},
    "reader/piece_reader.h": {"system_runtime": _DEFAULT},
    "reader/tensor_reader.h": {"system_runtime": _DEFAULT},
    "engine/engine.h": {"system_runtime": _DEFAULT},
}


def found_in(text: str) -> list[tuple[int, str]]:
    """What goes past the seams, with its line."""
    code = NOT_CODE.sub(lambda match: " " * len(match[0]), text)
    return [
        (code.count("\n", 0, match.start()) + 1, next(filter(None, match.groups())))
        for match in PAST.finditer(code)
    ]


def check(csrc: Path) -> list[str]:
    """What is wrong: uses that are not allowed, and allowances of which none is made."""
    wrong = []
    unused = {(name, what) for name, allowed in ALLOWED.items() for what in allowed}
    for room in ROOMS:
        for path in sorted((csrc / room).glob("*.*")):
            name = f"{room}/{path.name}"
            for line, what in found_in(path.read_text()):
                unused.discard((name, what))
                if what not in ALLOWED.get(name, {}):
                    wrong.append(f"{path}:{line}: {what} goes past FileIo and Runtime")
    return wrong + [
        f"tests/seams.py: {name} makes no use of {what}" for name, what in sorted(unused)
    ]


def main() -> int:
    wrong = check(Path(__file__).resolve().parents[1] / "csrc")
    for each in wrong:
        print(each)
    print(f"seams: {len(wrong)} findings in {', '.join(ROOMS)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
