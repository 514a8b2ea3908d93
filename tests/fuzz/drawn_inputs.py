"""What the fuzz targets in Python share: how inputs are drawn and checked, one after the other, and
the arguments that say how many. What is drawn and what must hold of it, each target says.

An input that breaks a property, or that nothing was prepared for, is kept in the folder of
findings; its path as an argument replays it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Input:
    """`name`: of its file, which begins with its kind. `number`: of those drawn from a seed, from 1
    on; 0 of one that is replayed.
    """

    name: str
    number: int
    content: bytes


Draw = Callable[[random.Random], tuple[str, bytes]]  # its kind, its content
Check = Callable[[Input], None]


class BrokenPropertyError(Exception):
    """A property that does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenPropertyError(what)


def run(doc: str, draw: Draw, check: Check) -> int:
    """What a target does: the exit status, 1 where an input broke a property."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=0, help="instead of seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path())
    parser.add_argument("inputs", nargs="*", type=Path, help="findings to replay")
    arguments = parser.parse_args()
    for path in arguments.inputs:
        check(Input(path.name, 0, path.read_bytes()))
    if arguments.inputs:
        return 0
    return _fuzz(arguments, draw, check)


def _fuzz(arguments: argparse.Namespace, draw: Draw, check: Check) -> int:
    rng = random.Random(arguments.seed)
    until = time.monotonic() + arguments.seconds
    executions = 0
    while executions < arguments.runs if arguments.runs else time.monotonic() < until:
        kind, content = draw(rng)
        executions += 1
        name = f"{kind}-{arguments.seed}-{executions}"
        try:
            check(Input(name, executions, content))
        except BaseException as error:
            kept = arguments.findings / name
            kept.write_bytes(content)
            print(f"{kept}: {error!r}\n{content[:500]!r}")
            if not isinstance(error, BrokenPropertyError):
                raise
            return 1
    print(f"{executions} executions")
    return 0
