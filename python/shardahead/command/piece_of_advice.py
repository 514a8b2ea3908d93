"""A piece of advice of `doctor`: what is wrong, the commands that change it now, and what keeps it
so. A value.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """`problem` in a sentence; `commands` for a shell, as root where `root`; `keep` is where the
    change has to be written so that it outlives a mount or a boot; `instead` what helps where
    nothing can be changed.
    """

    problem: str
    commands: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    root: bool = False
    instead: tuple[str, ...] = ()
