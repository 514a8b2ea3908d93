"""Which tensors of which shard are wanted: what the index says decides, then what was asked for.

What is left out or comes twice is said once for each checkpoint that is loaded. Looks at names
alone. Any thread.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias

from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.shards import Checkpoint
from shardahead.units import quoted

logger = logging.getLogger("shardahead")

#: Which tensors are wanted: their names, or a predicate of a name.
Names: TypeAlias = Collection[str] | Callable[[str], bool]


class Wanted:
    """Of one pass over `checkpoint`. `names`: only these, a collection or a predicate.

    Raises TypeError for `names` that are neither, or that hold what is no string.
    """

    def __init__(self, checkpoint: Checkpoint, names: Names | None) -> None:
        self._checkpoint = checkpoint
        self._names = predicate_of(names)
        self._of_shard: list[list[str]] | None = None  # what the index gives to each
        self._holder: dict[str, int] = {}  # without an index: the shard that holds a tensor
        self._left_out = itertools.count()
        self._twice = itertools.count()

    def __call__(self, shard: int, name: str) -> bool:
        """Whether the tensor `name` of this shard is wanted."""
        owners = self._checkpoint.owners
        if owners is not None and owners.get(name) != shard:
            self._say_left_out(shard, name, owners.get(name))
            return False
        if not self._names(name):
            return False
        if owners is None and self._holder.setdefault(name, shard) != shard:
            self._say_twice(shard, name)
        return True

    def require(self, shard: int, held: Collection[str]) -> None:
        """Raises CheckpointError where the index gives a wanted tensor to this shard, and `held`,
        the names of its tensors, do not have it.
        """
        owners = self._checkpoint.owners
        if owners is None:
            return
        if self._of_shard is None:
            of_shard: list[list[str]] = [[] for _ in self._checkpoint.shards]
            for name, owner in owners.items():
                of_shard[owner].append(name)
            self._of_shard = of_shard
        missing = [name for name in self._of_shard[shard] if name not in held]
        for name in missing:
            if self._names(name):
                raise CheckpointError(
                    f"index {self._checkpoint.index!r} gives the tensor {quoted(name)} to "
                    f"{self._path(shard)!r}, which does not hold it",
                    self._path(shard),
                    name,
                )

    def _path(self, shard: int) -> str:
        return self._checkpoint.shards[shard].path

    def _say_left_out(self, shard: int, name: str, owner: int | None) -> None:
        if next(self._left_out):  # one of them is enough; the first call of any thread gives 0
            return
        why = "does not name it" if owner is None else f"gives it to {self._path(owner)!r}"
        logger.warning(
            "%r holds the tensor %s, which is left out: the index %r %s; others like it are left "
            "out as well",
            self._path(shard),
            quoted(name),
            self._checkpoint.index,
            why,
        )

    def _say_twice(self, shard: int, name: str) -> None:
        if next(self._twice):
            return
        logger.warning(
            "the tensor %s is in %r and in %r, and no index says which of them counts: both are "
            "handed out; others like it as well",
            quoted(name),
            self._path(self._holder[name]),
            self._path(shard),
        )


def predicate_of(names: Names | None) -> Callable[[str], bool]:
    """Whether a tensor of this name is wanted. Raises TypeError for what is neither."""
    if names is None:
        return lambda _name: True
    if callable(names):
        return names
    if isinstance(names, str | bytes | bytearray) or not isinstance(names, Iterable):
        what = quoted(names) if isinstance(names, str) else type(names).__name__
        raise TypeError(f"names must be a collection of names or a predicate, not {what}")
    wanted = list(names)
    for number, name in enumerate(wanted):
        if not isinstance(name, str):
            raise TypeError(f"names[{number}] must be a string, not {type(name).__name__}")
    return frozenset(wanted).__contains__
