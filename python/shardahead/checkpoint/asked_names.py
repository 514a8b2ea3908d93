"""Which tensors a caller asked for by name, and what is said where the checkpoint has none of them.

Looks at names alone. Any thread.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import TypeAlias

from shardahead.units import quoted

#: Which tensors are wanted: their names, or a predicate of a name.
Names: TypeAlias = Collection[str] | Callable[[str], bool]

_MOST_SHOWN = 3
# For a message: names of a checkpoint that are looked at, and of those that difflib compares.
_MOST_COMPARED = 20_000
_MOST_COMPARED_CHARACTERS = 200
_MOST_MATCHED = 200


class AskedNames:
    """`names`: None for all, a collection or a predicate. Raises TypeError for what is neither, or
    holds what is no string. `argument`: what the caller calls it.
    """

    def __init__(self, names: Names | None, argument: str = "names") -> None:
        self._argument = argument
        self.listed: tuple[str, ...] | None = None  # each once, as asked for
        if names is None:
            self._predicate: Callable[[str], bool] | None = None
        elif callable(names):
            self._predicate = names
        else:
            self.listed = tuple(dict.fromkeys(_checked(names)))
            self._predicate = frozenset(self.listed).__contains__

    def __call__(self, name: str) -> bool:
        return self._predicate is None or self._predicate(name)

    @property
    def must_match(self) -> bool:
        """Whether it is a mistake to match nothing: not where all are asked for, or none."""
        return self._predicate is not None and self.listed != ()

    def missing(self, held: Collection[str]) -> list[str]:
        """Those of a collection that are not in `held`."""
        return [name for name in self.listed or () if name not in held]

    def none_found(self, held: Collection[str]) -> ValueError:
        """The error where nothing that was asked for is in `held`."""
        if self.listed is None:
            text = f"the predicate takes none of the {len(held)} tensors"
        else:
            text = f"none of the {len(self.listed)} names is a tensor: {some(self.listed)}"
            alike = _alike(self.listed, held)
            text += f"; there are {', '.join(map(quoted, alike))}" if alike else ""
        return ValueError(f"{self._argument}: {text} (strict=False: not an error)")


def some(names: Sequence[str]) -> str:
    """Names for a message, of which there may be thousands."""
    more = len(names) - _MOST_SHOWN
    return ", ".join(map(quoted, names[:_MOST_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _checked(names: object) -> list[str]:
    if isinstance(names, str | bytes | bytearray) or not isinstance(names, Iterable):
        what = quoted(names) if isinstance(names, str) else type(names).__name__
        raise TypeError(f"names must be a collection of names or a predicate, not {what}")
    wanted = list(names)
    for number, name in enumerate(wanted):
        if not isinstance(name, str):
            raise TypeError(f"names[{number}] must be a string, not {type(name).__name__}")
    return wanted


def _alike(asked: Sequence[str], held: Collection[str]) -> list[str]:
    """Of `held`, what some of `asked` may have meant, each once."""
    # torch.save takes keys of any type.
    named = (name for name in held if isinstance(name, str))
    short = (name for name in named if len(name) <= _MOST_COMPARED_CHARACTERS)
    candidates = list(islice(short, _MOST_COMPARED))
    found: dict[str, None] = {}
    for name in asked[:_MOST_SHOWN]:
        if len(name) <= _MOST_COMPARED_CHARACTERS:
            nearest = heapq.nlargest(_MOST_MATCHED, candidates, partial(_common_ends, name))
            found.update(dict.fromkeys(difflib.get_close_matches(name, nearest, n=2)))
    return list(found)


def _common_ends(name: str, other: str) -> tuple[int, int]:
    """How many characters they begin and end with alike; what difflib looks at takes 0.1 ms."""
    ends = _common_start(name, other) + _common_start(name[::-1], other[::-1])
    return ends, -abs(len(name) - len(other))


def _common_start(name: str, other: str) -> int:
    differ = (i for i, (a, b) in enumerate(zip(name, other, strict=False)) if a != b)
    return next(differ, min(len(name), len(other)))
