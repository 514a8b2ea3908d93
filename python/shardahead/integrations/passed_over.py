"""What of a checkpoint a model has no place for: the layers of other pipeline stages, the experts
of other ranks, and draft layers that only a model of their own loads.

The engine gives each tensor to the model, which passes over these. Decides by names, and only where
they are certain: what is taken for needed although it is not is brought in as ever. Imports no
engine. Any thread.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

# By name: engines move them between modules, and some models have their own.
_PLACEHOLDERS = {"PPMissingLayer", "StageMissingLayer"}
# What names in a checkpoint become in the model.
_MAPPERS = ("hf_to_vllm_mapper", "hf_to_sglang_mapper")
# The module whose children are the numbered layers of a model.
_LAYERS = "layers"
# How many draft layers follow them in the checkpoint, in the configuration.
_DRAFT_LAYERS = "num_nextn_predict_layers"
# Of experts that other ranks have, these are used all the same.
_OF_ALL_EXPERTS = "input_scale"

Modules = Sequence[tuple[str, Any]]
#: Of a module, by its name, the names of experts that other ranks have: "layers.1.experts.7".
AbsentExperts = Callable[[str, Any], Iterable[str]]


@dataclass(frozen=True)
class LoadedModel:
    """A model that is being loaded: the `name` of its class, and `unneeded(name)`, whether it
    passes over a tensor of the checkpoint; None where it has a place for all, or that is not known.
    """

    name: str = ""
    unneeded: Callable[[str], bool] | None = None


UNKNOWN = LoadedModel()


class LoadedModels:
    """Which model each of an engine's loaders is at: engines do not tell it where files are read.
    Holds neither.

    `absent_experts` knows the engine's modules of experts.
    """

    def __init__(self, absent_experts: AbsentExperts | None = None) -> None:
        self._absent_experts = absent_experts
        self._models: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()

    def note(self, loader: Any, model: Any) -> None:
        with suppress(TypeError):  # one that cannot be a key, or be referred to
            self._models[loader] = weakref.ref(model)

    def at(self, loader: Any, source: Any) -> LoadedModel:
        """The model that `loader` is at, which reads `source`, one of its checkpoints."""
        with suppress(TypeError):
            noted = self._models.get(loader)
            model = None if noted is None else noted()
            if model is not None:
                prefix = getattr(source, "prefix", "")
                unneeded = unneeded_by(model, prefix, self._absent_experts)
                return LoadedModel(type(model).__name__, unneeded)
        return UNKNOWN


def loads_as(module: Any, place: str, name: str) -> bool:
    """Whether a module is of the class `name` of the engine's module `place`, and loads weights as
    that does.
    """
    engines: Any = getattr(sys.modules.get(place), name, None)
    if engines is None or not isinstance(module, engines):
        return False
    return type(module).weight_loader is engines.weight_loader


def unneeded_by(
    model: Any, prefix: str = "", absent_experts: AbsentExperts | None = None
) -> Callable[[str], bool] | None:
    """Whether `model` passes over a tensor, by its name in a checkpoint; None where it has a place
    for all, or that cannot be known. `prefix`: what the engine puts before names of the checkpoint.
    """
    try:
        modules = list(model.named_modules())
        absent = absent_modules(modules, tied=may_tie_embeddings(model))
        experts = set() if absent_experts is None else _experts(modules, absent_experts)
        layers = number_of_layers(modules) if has_draft_layers(model) else {}
        in_model = _in_model(model)
    except Exception:  # no module, or otherwise in this version
        return None
    if not absent and not experts and not layers:
        return None

    def unneeded(name: str) -> bool:
        try:
            found = in_model(prefix + name)
        except Exception:  # of a mapper that is otherwise in this version
            return False
        if not isinstance(found, str):
            return False
        parts = found.split(".")
        for number in range(1, len(parts)):
            module = ".".join(parts[:number])
            if module in absent:
                return True
            if module in experts:
                return _OF_ALL_EXPERTS not in parts[-1]
            if module in layers and _is_beyond(parts[number], layers[module]):
                return True
        return False

    return unneeded


def absent_modules(modules: Iterable[tuple[str, object]], *, tied: bool) -> set[str]:
    """What of the model there are but placeholders for among `modules`.

    `tied`: input and output embedding may be one tensor, which a stage that has the one may find
    under the name of the other: only layers that are numbered count then.
    """
    found = [name for name, module in modules if name and type(module).__name__ in _PLACEHOLDERS]
    return {name for name in found if not tied or _is_numbered(name)}


def number_of_layers(modules: Iterable[tuple[str, object]]) -> dict[str, int]:
    """By the name of each list of layers, how many it has: from 0 on, and more than one."""
    found: dict[str, set[int]] = {}
    for name, _ in modules:
        parent, _, last = name.rpartition(".")
        if last.isdecimal() and parent.rpartition(".")[2] == _LAYERS:
            found.setdefault(parent, set()).add(int(last))
    return {
        parent: len(numbers)
        for parent, numbers in found.items()
        if len(numbers) > 1 and numbers == set(range(len(numbers)))
    }


def has_draft_layers(model: Any) -> bool:
    """Whether draft layers follow the model's own in its checkpoint, as its configuration says."""
    return any(getattr(each, _DRAFT_LAYERS, None) for each in _configurations(model))


def may_tie_embeddings(model: Any) -> bool:
    """False only where all that its configuration says of it is that it does not."""
    said = [getattr(each, "tie_word_embeddings", None) for each in _configurations(model)]
    told = [value for value in said if value is not None]
    return not told or any(value is not False for value in told)


def _configurations(model: Any) -> list[Any]:
    """Of the model, and of the part of it that has the language."""
    config = getattr(model, "config", None)
    asked = [config, getattr(config, "text_config", None), getattr(config, "llm_config", None)]
    return [each for each in asked if each is not None]


def _experts(modules: Modules, absent_experts: AbsentExperts) -> set[str]:
    return {expert for name, module in modules for expert in absent_experts(name, module)}


def _is_beyond(part: str, layers: int) -> bool:
    return part.isdecimal() and int(part) >= layers


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
