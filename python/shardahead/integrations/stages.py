"""What of a checkpoint a model has no place for: the layers of other pipeline stages.

Where another stage has a layer, the model of this one has a placeholder, and the engine passes over
what is loaded into that. Decides by names, and only where they are certain: what is taken for
needed although it is not is brought in as ever. Imports no engine. Any thread.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

# By name: engines move them between modules, and some models have their own.
_PLACEHOLDERS = {"PPMissingLayer", "StageMissingLayer"}
# What names in a checkpoint become in the model.
_MAPPERS = ("hf_to_vllm_mapper", "hf_to_sglang_mapper")


class LoadedModels:
    """Which model each of an engine's loaders is at: engines do not tell it where files are read.
    Holds neither.
    """

    def __init__(self) -> None:
        self._models: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()

    def note(self, loader: Any, model: Any) -> None:
        with suppress(TypeError):  # one that cannot be a key, or be referred to
            self._models[loader] = weakref.ref(model)

    def unneeded(self, loader: Any, source: Any) -> Callable[[str], bool] | None:
        """As `unneeded_by`, of one of the checkpoints of the model that `loader` is at."""
        with suppress(TypeError):
            model = self._models.get(loader)
            if model is not None:
                return unneeded_by(model(), getattr(source, "prefix", ""))
        return None


def unneeded_by(model: Any, prefix: str = "") -> Callable[[str], bool] | None:
    """Whether `model` passes over a tensor, by its name in a checkpoint; None where it has a place
    for all, or that cannot be known. `prefix`: what the engine puts before names of the checkpoint.
    """
    try:
        absent = absent_prefixes(model.named_modules(), tied=may_tie_embeddings(model))
        in_model = _in_model(model)
    except Exception:  # no module, or otherwise in this version
        return None
    if not absent:
        return None

    def unneeded(name: str) -> bool:
        try:
            found = in_model(prefix + name)
        except Exception:  # of a mapper that is otherwise in this version
            return False
        return isinstance(found, str) and found.startswith(absent)

    return unneeded


def absent_prefixes(modules: Iterable[tuple[str, object]], *, tied: bool) -> tuple[str, ...]:
    """How names in the model begin for which there are but placeholders among `modules`.

    `tied`: input and output embedding may be one tensor, which a stage that has the one may find
    under the name of the other: only layers that are numbered count then.
    """
    found = [name for name, module in modules if name and type(module).__name__ in _PLACEHOLDERS]
    return tuple(f"{name}." for name in found if not tied or _is_numbered(name))


def may_tie_embeddings(model: Any) -> bool:
    """False only where all that its configuration says of it is that it does not."""
    config = getattr(model, "config", None)
    asked = [config, getattr(config, "text_config", None), getattr(config, "llm_config", None)]
    said = [getattr(each, "tie_word_embeddings", None) for each in asked if each is not None]
    told = [value for value in said if value is not None]
    return not told or any(value is not False for value in told)


def _is_numbered(name: str) -> bool:
    return name.rpartition(".")[2].isdecimal()


def _in_model(model: Any) -> Callable[[str], Any]:
    """A name in the checkpoint as one in the model, or what is no text where there is none."""
    for name in _MAPPERS:
        mapper = getattr(model, name, None)
        if mapper is not None:
            found: Callable[[str], Any] = getattr(mapper, "map_name", None) or mapper._map_name
            return found
    return lambda name: name
