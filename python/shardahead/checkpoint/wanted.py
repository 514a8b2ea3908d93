"""Which tensors of which shard are wanted: what the index says decides, then what was asked for.

What is left out or comes twice is said once for each checkpoint that is loaded. Looks at names
alone. Any thread.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Sequence

from shardahead.checkpoint.asked_names import AskedNames, Names, some
from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.shards import Checkpoint
from shardahead.units import quoted

logger = logging.getLogger("shardahead")


class Wanted:
    """Of one pass over `checkpoint`. `names`: only these, a collection or a predicate. `sliced`:
    names of tensors of which a part is wanted; they leave out none.

    Raises TypeError for `names` that are neither, or that hold what is no string; where `strict`,
    ValueError for those that match no tensor of the index.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: Names | None,
        *,
        strict: bool,
        sliced: Sequence[str] | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._sliced = AskedNames(sliced or (), "slices")
        self._not_seen = set(sliced or ())  # of them
        self._names = AskedNames(names)
        self._strict = strict
        self._seen: list[str] = []  # without an index: of all shards, while none was wanted
        self._of_shard: list[list[str]] | None = None  # what the index gives to each
        self._holder: dict[str, int] = {}  # without an index: the shard that holds a tensor
        self._left_out = itertools.count()
        self._twice = itertools.count()
        owners = checkpoint.owners
        if owners is not None:
            self._not_seen.difference_update(owners)
            self._settle(owners, any(map(self._names, owners)))
            self._settle_sliced(owners)

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
            self._not_seen.difference_update(held)
            if (not self._holder and self._names.must_match) or self._none_sliced():
                self._seen += held
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

    def all_seen(self) -> None:
        """After `require` of every shard, and `__call__` of all that they hold. Raises ValueError
        where nothing was wanted and `strict`; says which names no shard holds.
        """
        if self._checkpoint.owners is None:
            self._settle(self._holder or self._seen, bool(self._holder))
            self._settle_sliced(self._seen)

    def _settle(self, held: Collection[str], any_wanted: bool) -> None:
        listed = self._names.listed
        if listed is None and (any_wanted or not held):
            return  # a predicate that was never asked is not wrong
        if self._strict and not any_wanted and self._names.must_match:
            raise self._names.none_found(held)
        missing = self._names.missing(held if any_wanted else ())
        if listed and missing:
            text = "no shard holds %d of the %d names that were asked for: %s (%r)"
            self._say_missing(text, missing, listed)

    def _none_sliced(self) -> bool:
        """Whether parts were asked for, and of no tensor that is there."""
        return self._sliced.must_match and len(self._not_seen) == len(self._sliced.listed or ())

    def _settle_sliced(self, held: Collection[str]) -> None:
        if self._strict and self._none_sliced():
            raise self._sliced.none_found(held)
        missing = [name for name in self._sliced.listed or () if name in self._not_seen]
        if missing:
            text = "no shard holds %d of the %d tensors that slices names: %s (%r)"
            self._say_missing(text, missing, self._sliced.listed or ())

    def _say_missing(self, text: str, missing: Sequence[str], listed: Sequence[str]) -> None:
        logger.warning(
            text,
            len(missing),
            len(listed),
            some(missing),
            self._checkpoint.index or self._path(0),
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
