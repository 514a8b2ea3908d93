"""How shards are called in a table: their common folder once, then names that fit. Pure.

A name is cut only where it stays different from all others, in what all of them have in common; one
that cannot be cut so is left as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

_DIGITS = "0123456789"


def apart(paths: Sequence[str]) -> tuple[str, list[str]]:
    """The folder in which all of them lie, "" where there is none but the root, and their names in
    it: put together they are the paths as they were given.
    """
    parts = [path.split("/") for path in paths]
    common = 0
    for names in zip(*(each[:-1] for each in parts), strict=False):
        if len(set(names)) > 1:
            break
        common += 1
    if common == 0:
        return "", list(paths)
    folder = "/".join(parts[0][:common])
    if not folder.strip("/"):
        return "", list(paths)
    return folder, ["/".join(each[common:]) for each in parts]


def shortened(names: Sequence[str], width: int, mark: str) -> list[str]:
    """`names` in `width` cells each, as far as that is possible; `mark` stands for what is left
    out. One that is too long loses the middle of what all have in common at the beginning, or at
    the end.
    """
    over = max(map(cells_of, names), default=0) - width
    if over <= 0:
        return list(names)
    if len(set(names)) == 1:
        return [_without_middle(name, over, mark) or name for name in names]
    begin = _common_beginning(names)
    end = _common_beginning([name[begin:][::-1] for name in names])
    # Not within a number: it is by that that shards are told apart.
    begin = len(names[0][:begin].rstrip(_DIGITS))
    tail = names[0][len(names[0]) - end :]
    end = len(tail.lstrip(_DIGITS))
    head, tail = names[0][:begin], names[0][len(names[0]) - end :]
    middles = [name[begin : len(name) - end] for name in names]
    for cut_head, cut_tail in (
        (_without_middle(head, over, mark), tail),
        (head, _without_middle(tail, over, mark)),
        _both(head, tail, over, mark),
    ):
        if cut_head is not None and cut_tail is not None:
            return [f"{cut_head}{middle}{cut_tail}" for middle in middles]
    return list(names)


def _common_beginning(texts: Sequence[str]) -> int:
    """How many characters it has."""
    least, most = min(texts), max(texts)  # between them all others lie
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(least, most, strict=False))
    return sum(1 for _ in same)


def _both(head: str, tail: str, over: int, mark: str) -> tuple[str | None, str | None]:
    """As much as is possible of the first, and the rest of the other."""
    cut_head = next(
        (cut for cells in range(over, 0, -1) if (cut := _without_middle(head, cells, mark))), None
    )
    if cut_head is None:
        return None, None
    left = over - (cells_of(head) - cells_of(cut_head))
    return cut_head, _without_middle(tail, left, mark)


def _without_middle(text: str, cells: int, mark: str) -> str | None:
    """`text` at least `cells` shorter, with `mark` in its middle; None where it cannot be."""
    if cells <= 0:
        return text
    most = cells_of(text) - cells - cells_of(mark)
    if most < 2:
        return None
    kept_head = _fitting(text, most - most // 2)
    kept_tail = _fitting(text[::-1], most // 2)[::-1]
    return f"{kept_head}{mark}{kept_tail}"


def _fitting(text: str, cells: int) -> str:
    """As much of the beginning of `text` as fits."""
    sums = itertools.accumulate(cells_of(character) for character in text)
    return text[: sum(1 for total in sums if total <= cells)]


def cells_of(text: str) -> int:
    """How many columns of a terminal it takes."""
    from rich.cells import cell_len

    return cell_len(text)
