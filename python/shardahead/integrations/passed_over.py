"""What of a checkpoint a model has no place for: the layers of other pipeline stages, the experts
and the rows of other ranks, and draft layers that only a model of their own loads.

The engine gives each tensor to the model, which passes over these. Decides by names and shapes, and
only where they are certain: what is taken for needed although it is not is brought in as ever.
Imports no engine. Any thread.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from shardahead.node.fixed_share import proven_share
from shardahead.node.topology import local_topology
from shardahead.weights.safetensors_load import UsedRows

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
_NO_ROWS = (0, 0)


@dataclass(frozen=True)
class Rows:
    """Rows `start` to `stop` - 1 of a matrix that has `of` of them, which `ranks` ranks share."""

    start: int
    stop: int
    of: int
    ranks: int


@dataclass(frozen=True)
class Experts:
    """The routed experts of the module that the checkpoint calls `name`: `absent` are those that
    this rank has not, as numbers or otherwise as they are named there, of `count`. `rows`: which
    rows of its own experts' matrices it reads, by the last part of their names.
    """

    name: str
    absent: Sequence[str]
    count: int
    rows: Mapping[str, Rows] = field(default_factory=dict)

    def stacked(self) -> tuple[int, int] | None:
        """Where all experts are in one tensor, the rows of it that are this rank's; None where that
        is no one range, or all.
        """
        absent = {int(each) for each in self.absent if each.isdecimal()}
        here = [number for number in range(self.count) if number not in absent]
        if not absent or not here or here[-1] - here[0] + 1 != len(here):
            return None
        return here[0], here[-1] + 1


class Engine(Protocol):
    """What an engine's modules say of the tensors that they load, by the module's name."""

    def experts(self, name: str, module: Any) -> Experts | None: ...
    def rows(self, name: str, module: Any) -> Iterable[tuple[str, Rows]]: ...


@dataclass(frozen=True)
class LoadedModel:
    """A model that is being loaded: the `name` of its class, and which rows of a tensor of the
    checkpoint it uses; None where it uses all of them, or that is not known.
    """

    name: str = ""
    used_rows: UsedRows | None = None


UNKNOWN = LoadedModel()


class LoadedModels:
    """Which model each of an engine's loaders is at: engines do not tell it where files are read.
    Holds neither.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine
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
                return LoadedModel(type(model).__name__, used_by(model, prefix, self._engine))
        return UNKNOWN


def loads_as(module: Any, place: str, name: str) -> bool:
    """Whether a module is of the class `name` of the engine's module `place`, and loads weights as
    that does.
    """
    engines: Any = getattr(sys.modules.get(place), name, None)
    if engines is None or not isinstance(module, engines):
        return False
    return type(module).weight_loader is engines.weight_loader


def used_by(model: Any, prefix: str = "", engine: Engine | None = None) -> UsedRows | None:
    """Which rows of a tensor `model` uses; None where it uses all that there are, or that cannot be
    known. `prefix`: what the engine puts before names of the checkpoint.
    """
    try:
        modules = list(model.named_modules())
        absent = absent_modules(modules, tied=may_tie_embeddings(model))
        layers = number_of_layers(modules) if has_draft_layers(model) else {}
        in_model = _in_model(model)
        experts, rows = _shared_out(modules, engine)
    except Exception:  # no module, or otherwise in this version
        return None
    absent_experts = {f"{each.name}.{expert}" for each in experts for expert in each.absent}
    stacked = {each.name: (each.count, each.stacked()) for each in experts}
    if not absent and not absent_experts and not layers and not rows:
        return None

    def passes_over(parts: Sequence[str]) -> bool:
        for number in range(1, len(parts)):
            module = ".".join(parts[:number])
            if module in absent:
                return True
            if module in absent_experts:
                return _OF_ALL_EXPERTS not in parts[-1]
            if module in layers and _is_beyond(parts[number], layers[module]):
                return True
        return False

    def used_rows(name: str, shape: Sequence[int]) -> tuple[int, int] | None:
        try:
            found = in_model(prefix + name)
        except Exception:  # of a mapper that is otherwise in this version
            return None
        if not isinstance(found, str):
            return None
        parts = found.split(".")
        if passes_over(parts):
            return _NO_ROWS
        module = ".".join(parts[:-1])
        # A mapper may name the layer of which the checkpoint has a part.
        as_stored = ".".join([*parts[:-2], *name.split(".")[-2:-1]])
        part = rows.get(as_stored)
        if part is not None and parts[-1] == "weight" and [part.of] == list(shape[:-1]):
            return part.start, part.stop
        count, here = stacked.get(module, (0, None))
        return here if len(shape) > 2 and shape[0] == count else None

    return used_rows


def _shared_out(modules: Modules, engine: Engine | None) -> tuple[list[Experts], dict[str, Rows]]:
    """The experts of a model, and which rows of which matrices its rank has, where the ranks that
    share them are on several nodes: on one node its ranks need all rows between them.
    """
    if engine is None:
        return [], {}
    asked = [engine.experts(name, module) for name, module in modules]
    experts = [each for each in asked if each is not None]
    rows = {name: each for at, module in modules for name, each in engine.rows(at, module)}
    for each in experts:
        absent = {*each.absent}
        for number in range(each.count):
            if str(number) not in absent:
                rows |= {f"{each.name}.{number}.{part}": of for part, of in each.rows.items()}
    if rows:
        where = proven_share(local_topology())
        known = not where.source.startswith("default")
        rows = {name: each for name, each in rows.items() if known and each.ranks > where.size}
    return experts, rows


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
