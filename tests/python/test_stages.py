"""Which tensors a pipeline stage has no place for, by stand-ins of engines' models."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from shardahead.integrations.stages import (
    LoadedModels,
    absent_prefixes,
    may_tie_embeddings,
    unneeded_by,
)


class PPMissingLayer:
    """As both engines call theirs."""


class StageMissingLayer:
    """vLLM's, for a tower that the server was told to do without."""


class Layer:
    pass


class Mapper:
    """As vLLM's WeightsMapper."""

    def _map_name(self, name: str) -> str | None:
        if name.startswith("rotary."):
            return None
        return f"language_model.{name}" if name.startswith("model.") else name


class Model:
    def __init__(self, modules: Iterable[tuple[str, object]], **attributes: Any) -> None:
        self._modules = list(modules)
        vars(self).update(attributes)

    def named_modules(self) -> Iterable[tuple[str, object]]:
        return iter([("", self), *self._modules])


UNTIED = SimpleNamespace(tie_word_embeddings=False)


def stage(begin: int, end: int, layers: int = 12, before: str = "model.") -> list[Any]:
    """The modules of a stage of so many layers."""
    made: list[tuple[str, object]] = [
        (f"{before}embed_tokens", PPMissingLayer() if begin else Layer()),
        (f"{before}layers", Layer()),
    ]
    for number in range(layers):
        if begin <= number < end:
            made.append((f"{before}layers.{number}", Layer()))
            made.append((f"{before}layers.{number}.mlp", Layer()))
        else:
            made.append((f"{before}layers.{number}", PPMissingLayer()))
    made.append((f"{before}norm", Layer() if end == layers else PPMissingLayer()))
    made.append(("lm_head", Layer() if end == layers else PPMissingLayer()))
    return made


def needed(model: Model, names: Iterable[str], prefix: str = "") -> list[str]:
    unneeded = unneeded_by(model, prefix)
    assert unneeded is not None
    return [name for name in names if not unneeded(name)]


NAMES = [
    "lm_head.weight",
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.10.mlp.up_proj.weight",
    "model.layers.11.mlp.up_proj.weight",
    "model.layers.12.eh_proj.weight",  # a draft layer behind the last one
    "model.norm.weight",
]


def test_a_stage_needs_its_layers_and_its_ends() -> None:
    first, last = Model(stage(0, 2), config=UNTIED), Model(stage(10, 12), config=UNTIED)
    middle = Model(stage(1, 2), config=UNTIED)
    behind = "model.layers.12.eh_proj.weight"
    assert needed(first, NAMES) == [*NAMES[1:4], behind]
    assert needed(middle, NAMES) == [NAMES[3], behind]
    assert needed(last, NAMES) == [NAMES[0], *NAMES[4:]]


@pytest.mark.parametrize(
    "config",
    [
        None,
        SimpleNamespace(),
        SimpleNamespace(tie_word_embeddings=True),
        SimpleNamespace(
            tie_word_embeddings=False, text_config=SimpleNamespace(tie_word_embeddings=True)
        ),
    ],
)
def test_of_embeddings_that_may_be_one_tensor_nothing_is_said(config: Any) -> None:
    model = Model(stage(10, 12), config=config)
    assert may_tie_embeddings(model)
    assert needed(model, NAMES) == [*NAMES[:2], *NAMES[4:]]


def test_untied_is_what_every_part_of_the_configuration_says() -> None:
    nested = SimpleNamespace(tie_word_embeddings=None, text_config=UNTIED)
    assert not may_tie_embeddings(Model([], config=nested))
    assert not may_tie_embeddings(Model([], config=UNTIED))


def test_a_model_that_has_a_place_for_all_says_nothing() -> None:
    assert unneeded_by(Model(stage(0, 12), config=UNTIED)) is None
    assert unneeded_by(None) is None
    assert unneeded_by(object()) is None


def test_a_tower_whose_layers_are_numbered_alike_is_needed() -> None:
    tower = [(f"vision_tower.layers.{number}", Layer()) for number in range(4)]
    model = Model([*tower, *stage(2, 4, 4, "language_model.model.")], config=UNTIED)
    names = ["vision_tower.layers.0.w", "language_model.model.layers.0.w", "model.layers.0.w"]
    # Of the last it is not known what it becomes.
    assert needed(model, names) == [names[0], names[2]]


def test_names_count_as_the_model_has_them() -> None:
    modules = stage(2, 4, 4, "language_model.model.")
    model = Model(modules, config=UNTIED, hf_to_vllm_mapper=Mapper())
    names = ["model.layers.0.w", "model.layers.2.w", "rotary.layers.0.w", "vision.layers.0.w"]
    assert needed(model, names) == names[1:]


def test_a_mapper_that_cannot_be_asked_leaves_everything_needed() -> None:
    assert unneeded_by(Model(stage(2, 4, 4), hf_to_vllm_mapper=object())) is None


def test_what_stands_before_the_names_of_a_second_checkpoint_counts() -> None:
    model = Model(stage(2, 4, 4, "language_model.model."), config=UNTIED)
    names = ["model.layers.0.w", "model.layers.3.w"]
    assert needed(model, names, prefix="language_model.") == names[1:]
    assert needed(model, names) == names


def test_a_part_that_the_server_does_without_is_not_needed() -> None:
    modules = [("visual", StageMissingLayer()), ("model.layers.0", Layer())]
    assert absent_prefixes(modules, tied=False) == ("visual.",)
    assert absent_prefixes(modules, tied=True) == ()


def test_the_model_of_a_loader_is_known_while_it_is_there() -> None:
    models, loader, source = LoadedModels(), Layer(), SimpleNamespace(prefix="language_model.")
    model = Model(stage(2, 4, 4, "language_model.model."), config=UNTIED)
    assert models.unneeded(loader, source) is None
    models.note(loader, model)
    unneeded = models.unneeded(loader, source)
    assert unneeded is not None
    assert unneeded("model.layers.0.w")
    del model
    gc.collect()
    assert models.unneeded(loader, source) is None


def test_a_loader_that_cannot_be_noted_is_not() -> None:
    models, loader = LoadedModels(), [1]
    models.note(loader, Model(stage(2, 4, 4)))
    assert models.unneeded(loader, SimpleNamespace()) is None
