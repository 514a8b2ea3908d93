"""Which rows of matrices a tensor parallel rank reads, by stand-ins of engines' modules."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from shardahead.integrations import row_shares, sglang_layers, vllm_layers
from shardahead.integrations.passed_over import Experts, Rows, used_by
from shardahead.integrations.row_shares import Layers, share
from shardahead.node.launcher import LocalTopology

LINEAR, EMBEDDING, EXPERTS = "engine.linear", "engine.embedding", "engine.experts"


class Module:
    """As the engines' own: `place` is the rank of `ranks`."""

    def __init__(self, place: int = 1, ranks: int = 4, **attributes: Any) -> None:
        self.place, self.ranks = place, ranks
        self.weight: Any = SimpleNamespace(output_dim=0)
        vars(self).update(attributes)

    def weight_loader(self) -> None:
        pass


class ColumnParallelLinear(Module):
    output_size = 64


class MergedColumnParallelLinear(ColumnParallelLinear):
    output_sizes = (96, 96)


class QKVParallelLinear(ColumnParallelLinear):
    head_size = 8
    total_num_heads, total_num_kv_heads, num_kv_head_replicas = 16, 8, 1


class OtherLinear(ColumnParallelLinear):
    def weight_loader(self) -> None:
        pass


class RowParallelLinear(Module):
    pass


class VocabParallelEmbedding(Module):
    org_vocab_size = 1000
    tp_size = 4
    shard_indices = SimpleNamespace(org_vocab_start_index=256, org_vocab_end_index=512)


class ParallelLMHead(VocabParallelEmbedding):
    pass


LAYERS = Layers(LINEAR, EMBEDDING, lambda module: (module.place, module.ranks))


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = SimpleNamespace(
        ColumnParallelLinear=ColumnParallelLinear,
        MergedColumnParallelLinear=MergedColumnParallelLinear,
        QKVParallelLinear=QKVParallelLinear,
    )
    embedding = SimpleNamespace(VocabParallelEmbedding=VocabParallelEmbedding)
    monkeypatch.setitem(sys.modules, LINEAR, linear)
    monkeypatch.setitem(sys.modules, EMBEDDING, embedding)


def rows(name: str, module: object) -> dict[str, tuple[int, int, int]]:
    return {of: (each.start, each.stop, each.of) for of, each in LAYERS.rows(name, module)}


def test_a_linear_layer_is_cut_into_equal_rows() -> None:
    assert rows("mlp.fc1", ColumnParallelLinear()) == {"mlp.fc1": (16, 32, 64)}
    assert rows("mlp.fc1", ColumnParallelLinear(3)) == {"mlp.fc1": (48, 64, 64)}
    assert rows("mlp.fc1", ColumnParallelLinear(0, 1)) == {}
    assert rows("mlp.fc1", ColumnParallelLinear(0, 3)) == {}
    assert rows("mlp.fc2", RowParallelLinear()) == {}


def test_what_is_two_in_the_checkpoint_is_cut_each() -> None:
    merged = MergedColumnParallelLinear(2)
    part = (48, 72, 96)
    assert rows("a.mlp.gate_up_proj", merged) == {"a.mlp.gate_proj": part, "a.mlp.up_proj": part}
    # Of others it is not known what they are there.
    assert rows("a.mlp.fused", merged) == {}


@pytest.mark.parametrize(
    ("place", "ranks", "heads_of_keys", "replicas", "keys"),
    [
        (0, 4, 8, 1, (0, 16, 64)),
        (3, 4, 8, 1, (48, 64, 64)),
        (5, 8, 2, 4, (8, 16, 16)),  # four ranks have the same
        (2, 8, 1, 8, (0, 8, 8)),
    ],
)
def test_attention_is_cut_by_heads(
    place: int, ranks: int, heads_of_keys: int, replicas: int, keys: tuple[int, int, int]
) -> None:
    module = QKVParallelLinear(
        place, ranks, total_num_kv_heads=heads_of_keys, num_kv_head_replicas=replicas
    )
    heads = 128 // ranks
    assert rows("attn.qkv_proj", module) == {
        "attn.q_proj": (heads * place, heads * (place + 1), 128),
        "attn.k_proj": keys,
        "attn.v_proj": keys,
    }


def test_heads_of_values_may_be_of_another_size() -> None:
    module = QKVParallelLinear(1, 4, v_head_size=16)
    assert rows("qkv_proj", module)["v_proj"] == (32, 64, 128)
    assert rows("qkv_proj", module)["k_proj"] == (16, 32, 64)


def test_an_embedding_is_cut_as_its_indices_say() -> None:
    part = {"lm_head": (256, 512, 1000)}
    assert rows("lm_head", ParallelLMHead()) == part
    assert rows("lm_head", ParallelLMHead(tp_size=1)) == {}


@pytest.mark.parametrize(
    "module",
    [
        OtherLinear(),  # in a way of its own
        ColumnParallelLinear(use_presharded_weights=True),
        ColumnParallelLinear(weight=SimpleNamespace(output_dim=1)),
        ColumnParallelLinear(weight=SimpleNamespace(output_dim=0, packed_dim=0)),
        ColumnParallelLinear(weight=SimpleNamespace(output_dim=0, use_bitsandbytes_4bit=True)),
        ColumnParallelLinear(weight=None),  # quantized under another name
        QKVParallelLinear(weight=None),
        VocabParallelEmbedding(weight=SimpleNamespace(output_dim=0, packed_dim=0)),
    ],
)
def test_what_may_be_stored_or_cut_otherwise_is_read_whole(module: Module) -> None:
    assert rows("a.qkv_proj", module) == {}


def test_without_an_engine_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, LINEAR)
    monkeypatch.delitem(sys.modules, EMBEDDING)
    assert rows("mlp.fc1", ColumnParallelLinear()) == {}
    assert rows("lm_head", ParallelLMHead()) == {}


class Model:
    """Of one module for each name, as an engine that knows of each what is told."""

    def __init__(self, parts: Mapping[str, Rows], experts: Experts | None = None) -> None:
        self.parts, self.expert_module = parts, experts

    def named_modules(self) -> list[tuple[str, object]]:
        return [(name, object()) for name in ("", *self.parts, "experts")]

    def experts(self, name: str, _module: Any) -> Experts | None:
        return self.expert_module if name == "experts" else None

    def rows(self, name: str, _module: Any) -> list[tuple[str, Rows]]:
        return [(name, self.parts[name])] if name in self.parts else []


def on_a_node_of(ranks: int, monkeypatch: pytest.MonkeyPatch, source: str = "argument") -> None:
    where = LocalTopology(0, ranks, source)
    monkeypatch.setattr("shardahead.integrations.passed_over.local_topology", lambda: where)


def test_rows_count_where_the_ranks_are_on_several_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model({"fc1": share(1, 4, 64, 4)})
    on_a_node_of(2, monkeypatch)
    used_rows = used_by(model, engine=model)
    assert used_rows is not None
    assert used_rows("fc1.weight", (64, 32)) == (16, 32)
    for name, shape in [
        ("fc1.bias", (64,)),  # next to nothing
        ("fc1.weight", (60, 32)),  # not what the module is made for
        ("fc1.weight", (64, 32, 2)),
        ("fc1.weight", ()),
        ("fc2.weight", (64, 32)),
    ]:
        assert used_rows(name, shape) is None
    # Its ranks need all of it between them, or it is not known how many they are.
    on_a_node_of(4, monkeypatch)
    assert used_by(model, engine=model) is None
    on_a_node_of(1, monkeypatch, "default: no store")
    assert used_by(model, engine=model) is None


def test_a_launchers_size_counts_as_far_as_it_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model({"fc1": share(1, 4, 64, 4)})
    on_a_node_of(4, monkeypatch, "LOCAL_RANK and LOCAL_WORLD_SIZE")
    assert used_by(model, engine=model) is None
    monkeypatch.setattr(
        "shardahead.integrations.passed_over.proven_share",
        lambda where: replace(where, size=where.size // 2),
    )
    used_rows = used_by(model, engine=model)
    assert used_rows is not None
    assert used_rows("fc1.weight", (64, 32)) == (16, 32)


def test_a_mapper_may_name_the_whole_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_node_of(2, monkeypatch)

    def map_name(name: str) -> str:
        return "model." + name.replace("q_proj", "qkv_proj")

    model = Model({"model.0.q_proj": share(1, 4, 64, 4)})
    vars(model)["hf_to_vllm_mapper"] = SimpleNamespace(map_name=map_name)
    used_rows = used_by(model, engine=model)
    assert used_rows is not None
    assert used_rows("0.q_proj.weight", (64, 32)) == (16, 32)
    # All of it in one tensor.
    assert used_rows("0.qkv_proj.weight", (64, 32)) is None
    assert used_rows("weight", (64, 32)) is None


@pytest.mark.parametrize(
    ("absent", "here"),
    [
        ([2, 3, 4, 5], (0, 2)),
        ([0, 1, 4, 5], (2, 4)),
        ([0, 1, 2], (3, 6)),
        ([1, 2], None),  # in two ranges
        ([0, 1, 2, 3, 4, 5], None),
        ([], None),
    ],
)
def test_of_experts_in_one_tensor_a_rank_uses_its_own(
    absent: list[int], here: tuple[int, int] | None
) -> None:
    model = Model({}, Experts("experts", [str(number) for number in absent], 6))
    used_rows = used_by(model, engine=model)
    if not absent:
        assert used_rows is None
        return
    assert used_rows is not None
    assert used_rows("experts.gate_up_proj", (6, 32, 64)) == here
    assert used_rows("experts.down_proj_blocks", (6, 32, 2, 16)) == here
    for name, shape in [
        ("experts.gate_up_proj_bias", (6, 64)),  # next to nothing
        ("experts.gate_up_proj", (5, 32, 64)),
        ("router.weight", (6, 32, 2)),
    ]:
        assert used_rows(name, shape) is None


def test_experts_may_be_cut_by_rows_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_node_of(2, monkeypatch)
    part = share(1, 4, 64, 4)
    model = Model({}, Experts("experts", ["0"], 2, {"w1": part, "w3": part}))
    used_rows = used_by(model, engine=model)
    assert used_rows is not None
    assert used_rows("experts.0.w1.weight", (64, 32)) == (0, 0)
    assert used_rows("experts.1.w1.weight", (64, 32)) == (16, 32)
    assert used_rows("experts.1.w2.weight", (32, 64)) is None


class RoutedExperts:
    """As vLLM's, of four experts."""

    def __init__(self, tp_rank: int, tp_size: int, **weight: Any) -> None:
        self.moe_config = SimpleNamespace(tp_rank=tp_rank, tp_size=tp_size, intermediate_size=32)
        self.w13_weight = SimpleNamespace(**weight)

    def _map_global_expert_id_to_local_expert_id(self, place: int) -> int:
        return place

    def get_expert_mapping(self) -> list[tuple[str, str, int, str]]:
        parts = [("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")]
        return [
            ("experts.w_", f"experts.{number}.{part}.", number, shard)
            for number in range(4)
            for part, shard in parts
        ]

    def weight_loader(self) -> None:
        pass


class FusedMoE:
    """As SGLang's, of four experts."""

    uses_expert_location = False
    _num_global_routed = 4
    intermediate_size_per_partition = 16

    def __init__(self, tp_rank: int, tp_size: int, **weight: Any) -> None:
        self.moe_tp_rank, self.moe_tp_size = tp_rank, tp_size
        self.w13_weight = SimpleNamespace(**weight)

    def _map_global_expert_id_to_local_expert_id(self, place: int) -> int:
        return place

    def weight_loader(self) -> None:
        pass


def test_experts_of_the_engines_are_cut_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    vllms, sglangs = (
        SimpleNamespace(RoutedExperts=RoutedExperts),
        SimpleNamespace(FusedMoE=FusedMoE),
    )
    monkeypatch.setitem(sys.modules, vllm_layers._EXPERTS, vllms)
    monkeypatch.setitem(sys.modules, sglang_layers._EXPERTS, sglangs)
    part = Rows(16, 32, 32, 2)
    found = vllm_layers.experts("a.experts.routed_experts", RoutedExperts(1, 2))
    assert found == Experts("a.experts", [], 4, {"gate_proj": part, "up_proj": part})
    of_sglang = sglang_layers.experts("a.experts", FusedMoE(1, 2))
    assert of_sglang == Experts(
        "a.experts", [], 4, dict.fromkeys(("w1", "w3", "gate_proj", "up_proj"), part)
    )
    for whole in (
        vllm_layers.experts("experts", RoutedExperts(0, 1)),
        vllm_layers.experts("experts", RoutedExperts(1, 2, is_transposed=True)),
        sglang_layers.experts("experts", FusedMoE(0, 1)),
        sglang_layers.experts("experts", FusedMoE(1, 2, is_transposed=True)),
    ):
        assert whole == Experts("experts", [], 4)


def test_sglangs_layers_have_the_rank_in_their_group(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = SimpleNamespace(
        **{name: getattr(sys.modules[LINEAR], name) for name in vars(sys.modules[LINEAR])},
        get_group_rank_size=lambda group: group,
    )
    monkeypatch.setitem(sys.modules, sglang_layers._LINEAR, linear)
    layer = ColumnParallelLinear(tp_group=(2, 4))
    assert dict(sglang_layers.rows("fc1", layer)) == {"fc1": Rows(32, 48, 64, 4)}
    assert row_shares.share(2, 4, 64, 4) == Rows(32, 48, 64, 4)
