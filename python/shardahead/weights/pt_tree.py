"""Which tensors of what torch.load gave are the weights, and under which names.

The rule is in the documentation of `pt_weights_iterator`: nothing that holds tensors is left out
without a word. Pure; no I/O. Any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from shardahead.checkpoint.errors import ContentsError
from shardahead.units import quoted

if TYPE_CHECKING:
    import torch

#: Under one of these keys a file holds its weights where they are not at the top.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "weights", "params")

# What trainers keep beside the weights.
_TRAINERS_OWN = re.compile(
    r"(?:optim(?:izer)?s?|(?:lr_)?schedulers?|(?:grad_)?scaler|rng|random|callbacks|loops|"
    r"hyper_parameters)(?:_.*)?"
)
_MOST_WRAPPERS = 4  # one within the other
_SHOWN_KEYS = 4


def weights_of_tree(
    found: Mapping[Any, Any], depth: int = 0
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights in their order, and the keys under which a trainer keeps tensors of its own,
    which are left out. Raises ContentsError where others would be lost.
    """
    tensors = {key: value for key, value in found.items() if _is_tensor(value)}
    lost = {
        key: where
        for key, value in found.items()
        if key not in tensors and (where := _path_of_tensor(value)) is not None
    }
    own = [key for key in lost if _is_trainers_own(key)]
    for key in own:
        del lost[key]
    wrappers = [key for key in lost if key in WRAPPERS and isinstance(found[key], Mapping)]
    if len(wrappers) == 1 and depth < _MOST_WRAPPERS and all(map(_is_trainers_own, tensors)):
        own += tensors
        del lost[wrappers[0]]
        tensors, deeper = weights_of_tree(found[wrappers[0]], depth + 1)
        own += deeper
    for key, where in lost.items():
        path = "".join(f"[{quoted(step)}]" for step in islice((key, *where), _SHOWN_KEYS))
        more = "..." if len(where) >= _SHOWN_KEYS else ""
        raise ContentsError(
            f"has tensors that are not in its one dictionary of weights: at {path}{more}; save "
            "that dictionary by itself"
        )
    return tensors, own


def _is_tensor(value: object) -> bool:
    import torch

    return torch.is_tensor(value)


def _is_trainers_own(key: object) -> bool:
    return isinstance(key, str) and _TRAINERS_OWN.fullmatch(key) is not None


def _path_of_tensor(value: object) -> list[Any] | None:
    """The keys that lead to a tensor, or to a storage, within; None where there is none. What
    contains itself, or the same thing often, is looked at once.
    """
    import torch

    # Each with the step to it: (key, the step before).
    waiting: list[tuple[object, Any]] = [(value, None)]
    seen = {id(value)}
    while waiting:
        here, step = waiting.pop()
        if torch.is_tensor(here) or isinstance(here, torch.UntypedStorage | torch.TypedStorage):
            path = []
            while step is not None:
                key, step = step
                path.append(key)
            return path[::-1]
        for key, inner in _items(here):
            if id(inner) not in seen:
                seen.add(id(inner))
                waiting.append((inner, (key, step)))
    return None


def _items(container: object) -> Iterator[tuple[Any, object]]:
    if isinstance(container, Mapping):
        yield from container.items()
    elif isinstance(container, list | tuple | set | frozenset):
        yield from enumerate(container)
    if not isinstance(container, type):
        yield from getattr(container, "__dict__", {}).items()
