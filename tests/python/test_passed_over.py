"""Which tensors a model has no place for, by stand-ins of engines' models."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from shardahead.integrations import sglang_layers, vllm_layers
from shardahead.integrations.passed_over import (
    UNKNOWN,
    LoadedModels,
    absent_modules,
    may_tie_embeddings,
    number_of_layers,
    used_by,
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


SHAPE = (24, 16)  # of a tensor of which nothing else is known
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
    used_rows = used_by(model, prefix)
    assert used_rows is not None
    return [name for name in names if used_rows(name, SHAPE) is None]


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
    assert used_by(Model(stage(0, 12), config=UNTIED)) is None
    assert used_by(None) is None
    assert used_by(object()) is None


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
    assert used_by(Model(stage(2, 4, 4), hf_to_vllm_mapper=object())) is None


def test_what_stands_before_the_names_of_a_second_checkpoint_counts() -> None:
    model = Model(stage(2, 4, 4, "language_model.model."), config=UNTIED)
    names = ["model.layers.0.w", "model.layers.3.w"]
    assert needed(model, names, prefix="language_model.") == names[1:]
    assert needed(model, names) == names


def test_a_part_that_the_server_does_without_is_not_needed() -> None:
    modules = [("visual", StageMissingLayer()), ("model.layers.0", Layer())]
    assert absent_modules(modules, tied=False) == {"visual"}
    assert absent_modules(modules, tied=True) == set()


def test_the_model_of_a_loader_is_known_while_it_is_there() -> None:
    models, loader, source = LoadedModels(), Layer(), SimpleNamespace(prefix="language_model.")
    model = Model(stage(2, 4, 4, "language_model.model."), config=UNTIED)
    assert models.at(loader, source) == UNKNOWN
    models.note(loader, model)
    loaded = models.at(loader, source)
    assert loaded.name == "Model"
    assert loaded.used_rows is not None
    assert loaded.used_rows("model.layers.0.w", SHAPE) == (0, 0)
    del model
    gc.collect()
    assert models.at(loader, source) == UNKNOWN


def test_a_loader_that_cannot_be_noted_is_not() -> None:
    models, loader = LoadedModels(), [1]
    models.note(loader, Model(stage(2, 4, 4)))
    assert models.at(loader, SimpleNamespace()) == UNKNOWN


def test_a_model_leaves_the_draft_layers_behind_its_own() -> None:
    config = SimpleNamespace(tie_word_embeddings=False, num_nextn_predict_layers=1)
    model = Model(stage(0, 12), config=config)
    assert needed(model, NAMES) == [name for name in NAMES if ".12." not in name]
    part = SimpleNamespace(tie_word_embeddings=False, num_nextn_predict_layers=None)
    nested = SimpleNamespace(text_config=config, **vars(part))
    assert needed(Model(stage(0, 2), config=nested), NAMES) == NAMES[1:4]


@pytest.mark.parametrize(
    "modules",
    [
        [("model.layers.0", Layer())],  # a draft model's only layer, whatever its number there
        [(f"model.layers.{number}", Layer()) for number in (60, 61)],
        [(f"model.experts.{number}", Layer()) for number in range(4)],
    ],
)
def test_layers_that_may_be_numbered_otherwise_are_needed(modules: list[Any]) -> None:
    assert number_of_layers(modules) == {}
    config = SimpleNamespace(num_nextn_predict_layers=1)
    assert used_by(Model(modules, config=config)) is None


class FusedMoE:
    """As SGLang's module of experts: `begin` to `end` of `routed`, and the shared one behind."""

    uses_expert_location = True
    layer_id = 1

    def __init__(self, begin: int, end: int, routed: int) -> None:
        self._num_global_routed = routed
        self._here = range(begin, end)

    def _map_global_expert_id_to_local_expert_id(self, number: int) -> int:
        if number == self._num_global_routed:
            return len(self._here)
        return number - self._here.start if number in self._here else -1

    def weight_loader(self) -> None:
        pass


class OtherMoE(FusedMoE):
    def weight_loader(self) -> None:
        pass


class Location:
    """Of experts of which some are in several places."""

    num_logical_experts = 3

    def logical_to_all_physical(self, layer: int, number: int) -> list[int]:
        assert layer == 1
        return [[0, 3], [1], [2]][number]


@pytest.fixture
def sglang_modules(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    state = SimpleNamespace(location=None)
    experts = SimpleNamespace(FusedMoE=FusedMoE)
    metadata = SimpleNamespace(get_global_expert_location_metadata=lambda: state.location)
    monkeypatch.setitem(sys.modules, sglang_layers._EXPERTS, experts)
    monkeypatch.setitem(sys.modules, sglang_layers._LOCATION, metadata)
    return state


EXPERT = "model.layers.1.mlp.experts.{}.up_proj.{}"


def needed_experts(module: object, engine: Any, name: str, count: int) -> list[int]:
    model = Model([("model.layers.0", Layer()), (name, module)], config=UNTIED)
    used_rows = used_by(model, engine=engine)
    if used_rows is None:
        return list(range(count))

    def unneeded(name: str) -> bool:
        return used_rows(name, SHAPE) == (0, 0)

    assert not unneeded("model.layers.0.mlp.experts.7.up_proj.weight")
    assert not unneeded("model.layers.1.mlp.shared_experts.up_proj.weight")
    found = [n for n in range(count) if not unneeded(EXPERT.format(n, "weight"))]
    assert [n for n in range(count) if not unneeded(EXPERT.format(n, "weight_scale"))] == found
    # What of every expert a kernel may need.
    assert not any(unneeded(EXPERT.format(n, "input_scale")) for n in range(count))
    return found


def test_a_rank_of_sglang_needs_its_experts(sglang_modules: SimpleNamespace) -> None:
    def found(module: object) -> list[int]:
        name = "model.layers.1.mlp.experts"
        return needed_experts(module, sglang_layers, name, 5)

    assert found(FusedMoE(0, 2, 4)) == [0, 1, 4]
    assert found(FusedMoE(2, 4, 4)) == [2, 3, 4]
    assert found(FusedMoE(0, 4, 4)) == [0, 1, 2, 3, 4]
    # One that loads in its own way is not known.
    assert found(OtherMoE(0, 2, 4)) == [0, 1, 2, 3, 4]
    sglang_modules.location = Location()
    assert found(FusedMoE(0, 1, 4)) == [0, 3, 4]
    assert found(FusedMoE(2, 4, 4)) == [0, 2, 3, 4]
    plain = FusedMoE(2, 4, 4)
    plain.uses_expert_location = False
    assert found(plain) == [2, 3, 4]


class RoutedExperts:
    """As vLLM's: `physical` are the numbers in the checkpoint of those that there are, by place."""

    def __init__(self, begin: int, end: int, physical: list[int]) -> None:
        self._here, self._physical = range(begin, end), physical

    def _map_global_expert_id_to_local_expert_id(self, place: int) -> int:
        return place - self._here.start if place in self._here else -1

    def get_expert_mapping(self) -> list[tuple[str, str, int, str]]:
        fused = [("experts.w13_weight", "experts.gate_up_proj", 0, "w1")]
        return fused + [
            (f"experts.{to}_", f"experts.{number}.{part}.", place, shard)
            for place, number in enumerate(self._physical)
            for to, part, shard in (("w13", "up_proj", "w1"), ("w2", "down_proj", "w2"))
        ]

    def weight_loader(self) -> None:
        pass


def test_a_rank_of_vllm_needs_its_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(RoutedExperts=RoutedExperts)
    monkeypatch.setitem(sys.modules, vllm_layers._EXPERTS, module)

    def found(module: object) -> list[int]:
        name = "model.layers.1.mlp.experts.routed_experts"
        return needed_experts(module, vllm_layers, name, 4)

    assert found(RoutedExperts(0, 2, [0, 1, 2, 3])) == [0, 1]
    assert found(RoutedExperts(0, 4, [0, 1, 2, 3])) == [0, 1, 2, 3]
    # Two that are twice there.
    assert found(RoutedExperts(3, 6, [0, 1, 2, 3, 0, 1])) == [0, 1, 3]


def test_without_an_engine_no_expert_is_absent() -> None:
    for engine in (sglang_layers, vllm_layers):
        assert engine.experts("experts", FusedMoE(0, 1, 4)) is None
        assert not list(engine.rows("experts", FusedMoE(0, 1, 4)))
