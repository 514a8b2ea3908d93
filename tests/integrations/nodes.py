"""Two nodes that load a checkpoint of the engines' own models, each through a mount of its own.

A node is a page cache and a board: a mount stands for the one, a folder for the other. What is
asked is what each mount has served. No check judges by a clock.

PYTEST_DONT_REWRITE: the tests import it before pytest does.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import pytest
from harness import CONFIG, MIB, Checkpoint, Engine, MakeMount, resident_bytes

import shardahead

NODES = 2
GRAIN_BYTES = 64 * 1024  # in which is learned
DISABLED = {"SHARDAHEAD_DISABLE": "1"}
#: 88 MiB. A rank has rows of all matrices but two of each layer, whose rows of 2 KiB are narrower
#: than a page: of those each node needs every page.
LLAMA = {
    **CONFIG,
    "hidden_size": 1024,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 16384,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}
#: 53 MiB, of which 48 are 8 experts of 2 layers.
MIXTRAL = {
    **LLAMA,
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "vocab_size": 1024,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "hidden_size": 512,
    "sliding_window": None,
}


def shapes_of(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of such a model, as its checkpoint has them."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    kv = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield f"{layer}.self_attn.q_proj.weight", (hidden, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (kv, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (kv, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
        if "num_local_experts" in config:
            experts = config["num_local_experts"]
            yield f"{layer}.block_sparse_moe.gate.weight", (experts, hidden)
            for expert in range(experts):
                for part, shape in (("w1", (wide, hidden)), ("w2", (hidden, wide))):
                    yield f"{layer}.block_sparse_moe.experts.{expert}.{part}.weight", shape
                yield f"{layer}.block_sparse_moe.experts.{expert}.w3.weight", (wide, hidden)
        else:
            yield f"{layer}.mlp.gate_proj.weight", (wide, hidden)
            yield f"{layer}.mlp.up_proj.weight", (wide, hidden)
            yield f"{layer}.mlp.down_proj.weight", (hidden, wide)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (config["vocab_size"], hidden)


def make_model(
    folder: Path, config: dict[str, Any] = LLAMA, shard_bytes: int = 32 * MIB
) -> Checkpoint:
    """Random bytes of such a model, in shards of about so many, with an index."""
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(7)
    shards: list[dict[str, Any]] = [{}]
    for name, shape in shapes_of(config):
        tensor = torch.empty(shape, dtype=torch.bfloat16).uniform_(-1, 1, generator=generator)
        if sum(other.nbytes for other in shards[-1].values()) >= shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    files, places = [], {}
    for number, tensors in enumerate(shards, 1):
        path = folder / f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(tensors, path)
        files.append(path)
        places.update(dict.fromkeys(tensors, path.name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text(json.dumps(config))
    return Checkpoint(folder, tuple(files), sum(path.stat().st_size for path in files))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Of 88 MiB in 2 shards."""
    return make_model(tmp_path_factory.mktemp("llama") / "llama")


@pytest.fixture(scope="session")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Of 53 MiB, with experts."""
    return make_model(tmp_path_factory.mktemp("mixtral") / "mixtral", MIXTRAL)


@dataclass(frozen=True)
class Loaded:
    """Of one load by all nodes: the parameters of each rank and their bytes, what each node's mount
    served, what the documents of the loads say of `learned`, and how much of the checkpoint is in
    64 KiB of which something is resident, by node."""

    parameters: list[dict[str, str]]
    parameter_bytes: list[int]
    served: list[int]
    learned: list[str]
    touched: list[int]


class Nodes:
    """Of one job with tensor and pipeline parallel ranks, as many on each."""

    def __init__(
        self, engine: Engine, checkpoint: Checkpoint, make_mount: MakeMount, folder: Path
    ) -> None:
        self._engine, self._checkpoint = engine, checkpoint
        self._make_mount, self._folder = make_mount, folder
        self._mounts: list[Any] = []
        folder.mkdir()

    def mount(self, **options: Any) -> None:
        """What follows reads through fresh mounts, so from cold page caches."""
        self._mounts = [self._make_mount(self._checkpoint.folder, **options) for _ in range(NODES)]

    def load(
        self,
        tp: int,
        pp: int = 1,
        env: dict[str, str] | None = None,
        options: Sequence[str] = (),
        replicas: Sequence[Path] = (),
    ) -> Loaded:
        """By ranks whose page caches hold nothing. `options`: of the engine's command line.
        `replicas`: the folder with those of each node.
        """
        reports = self._folder / f"reports-{len(list(self._folder.iterdir()))}"
        reports.mkdir()
        job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **(env or {})}
        size, ranks, variables = tp * pp, [], []
        for rank in range(size):
            node, local = divmod(rank, size // NODES)
            board = self._folder / f"board-{node}"
            board.mkdir(exist_ok=True)
            world = {"rank": rank, "size": size, "local_rank": local, "tp": tp, "pp": pp}
            ranks.append(
                {
                    "checkpoint": str(self._mounts[node].mountpoint),
                    "world": world,
                    "options": [*options],
                }
            )
            variables.append(
                {
                    **job,
                    "SHARDAHEAD_BOARD_FOLDER": str(board),
                    "SHARDAHEAD_REPORT": str(reports),
                    "RANK": str(rank),
                    "WORLD_SIZE": str(size),
                    "LOCAL_RANK": str(local),
                    "LOCAL_WORLD_SIZE": str(size // NODES),
                    # On CPUs vLLM sets the one above to the tensor parallel size.
                    "SHARDAHEAD_LOCAL_RANK": str(local),
                    "SHARDAHEAD_LOCAL_SIZE": str(size // NODES),
                    **({"SHARDAHEAD_REPLICA_FOLDER": str(replicas[node])} if replicas else {}),
                }
            )
        for mount in self._mounts:
            mount.evict_all()
            mount.reset()
        found = self._engine.run("load_model", ranks, env=variables)
        for mount in self._mounts:
            mount.wait_until_idle()
        documents = [json.loads(path.read_text()) for path in reports.iterdir()]
        return Loaded(
            [rank.result["parameters"] for rank in found],
            [rank.result["bytes"] for rank in found],
            [mount.counters().bytes_served for mount in self._mounts],
            [document["learned"]["learned"] for document in documents if document.get("learned")],
            [self._touched(mount) for mount in self._mounts],
        )

    def stage(self, folder: Path) -> list[Path]:
        """A whole replica for each node; gives the folders in which they are."""
        folders = [folder / f"replicas-{node}" for node in range(NODES)]
        for mount, replicas in zip(self._mounts, folders, strict=True):
            replicas.mkdir(parents=True)
            shardahead.stage(mount.mountpoint, replicas)
        return folders

    def _touched(self, mount: Any) -> int:
        grains = 0
        for path in self._checkpoint.files:
            size = path.stat().st_size
            for at in range(0, size, GRAIN_BYTES):
                length = min(GRAIN_BYTES, size - at)
                if resident_bytes(mount.mountpoint / path.name, at, length):
                    grains += length
        return grains


def check_that_a_node_learns(nodes: Nodes, checkpoint: Checkpoint, folder: Path) -> None:
    """Two nodes of two ranks each, of four that are tensor parallel: from the first load on a node
    reads little more than a mapping would without readahead, and the parameters are the same.
    """
    nodes.mount(readahead_kib=0)
    plain = nodes.load(4, env=DISABLED)
    assert len({json.dumps(rank) for rank in plain.parameters}) == 4
    folder.mkdir()
    learn = {"SHARDAHEAD_LEARN": str(folder)}
    nodes.mount()
    first, second = nodes.load(4, env=learn), nodes.load(4, env=learn)
    assert first.parameters == second.parameters == plain.parameters
    assert (first.learned, second.learned) == (["recorded"] * 4, ["used"] * 4)
    assert len(list(folder.iterdir())) == 4
    for node in range(NODES):
        # What the layout allows: half of all but two matrices of each layer.
        assert plain.touched[node] <= 0.56 * checkpoint.size_bytes
        # In the first load as the modules of the model say it.
        for load in (first, second):
            assert load.served[node] <= 1.1 * plain.touched[node]
            assert load.served[node] <= 0.6 * checkpoint.size_bytes


def check_that_a_replica_is_read(
    nodes: Nodes, folder: Path, prefetching: Sequence[Sequence[str]]
) -> None:
    """Two nodes of one rank each, which have a replica each: their mounts serve what tells that it
    is of this version, and the parameters are the same. `prefetching`: the options of each way in
    which the engine asks for its own prefetch, or for none.
    """
    nodes.mount()
    plain = nodes.load(2, env=DISABLED)
    replicas = nodes.stage(folder)
    for options in prefetching:
        found = nodes.load(2, options=options, replicas=replicas)
        assert found.parameters == plain.parameters
        for served in found.served:
            assert served <= MIB


def check_that_a_stage_gets_its_layers(nodes: Nodes, checkpoint: Checkpoint) -> None:
    """Two nodes of one rank each, which are the stages of a pipeline: from the first load on a node
    reads what its stage has, and the parameters are the same.
    """
    nodes.mount()
    plain = nodes.load(1, 2, env=DISABLED)
    nodes.mount()
    found = nodes.load(1, 2)
    assert found.parameters == plain.parameters
    layers = [{name for name in rank if ".layers." in name} for rank in found.parameters]
    assert layers[0].isdisjoint(layers[1])
    for served, needed in zip(found.served, found.parameter_bytes, strict=True):
        # Not the last one's: SGLang's Llama has the head in each stage.
        assert needed <= 0.87 * checkpoint.size_bytes
        assert needed <= served <= needed + MIB
    assert found.parameter_bytes[1] <= 0.51 * checkpoint.size_bytes


def check_that_a_rank_gets_its_experts(
    nodes: Nodes, checkpoint: Checkpoint, options: Sequence[str]
) -> None:
    """Two nodes of one rank each, which are expert parallel by `options`: from the first load on a
    node leaves the other's experts out, and the parameters are the same.
    """
    nodes.mount()
    plain = nodes.load(2, env=DISABLED, options=options)
    assert plain.parameters[0] != plain.parameters[1]
    nodes.mount()
    found = nodes.load(2, options=options)
    assert found.parameters == plain.parameters
    shapes = {name: prod(shape) for name, shape in shapes_of(MIXTRAL)}
    experts = 2 * sum(size for name, size in shapes.items() if ".experts." in name)
    needed = checkpoint.size_bytes - experts // 2
    for served, parameter_bytes in zip(found.served, found.parameter_bytes, strict=True):
        assert experts // 2 <= parameter_bytes <= needed
        # All else is tensor parallel: of that the rows of this rank.
        assert parameter_bytes <= served <= needed + MIB


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
