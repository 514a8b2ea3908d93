"""SGLang's own model, loaded by SGLang's own loader in the groups of a job: for ranks of tests."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any
from unittest.mock import MagicMock

import rank_server
import torch
from sglang.srt import plugins, runtime_context
from sglang.srt.configs.device_config import DeviceConfig
from sglang.srt.configs.load_config import LoadConfig
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.distributed import parallel_state
from sglang.srt.layers.dp_attention import initialize_dp_attention
from sglang.srt.model_loader import loader
from sglang.srt.server_args import prepare_server_args


def load_model(
    checkpoint: str, world: dict[str, int], options: list[str] | None = None
) -> dict[str, Any]:
    """The parameters of this rank: a checksum of each, and their bytes.

    `world`: rank, size and local_rank, and how many ranks are tensor ("tp") and pipeline ("pp")
    parallel.
    """
    torch.set_num_threads(1)
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    plugins.load_plugins()
    sizes = [f"--tp-size={world['tp']}", f"--pp-size={world['pp']}"]
    arguments = ["--model-path", checkpoint, "--device", "cpu", "--dtype", "bfloat16"]
    server = prepare_server_args([*arguments, *sizes, *(options or [])])
    ranks = runtime_context.SpawnRanks(world_rank=world["rank"])
    runtime_context.publish(server, role="scheduler", ranks=ranks)
    join_world(world)
    _stand_in_for_what_is_not_here()
    # Which class it is, SGLang finds by importing all of its models.
    loader.get_model_architecture = lambda config: _class_of(config.hf_config.architectures[0])
    parallel_state.initialize_model_parallel()
    initialize_dp_attention(server)
    model = loader.get_model_loader(LoadConfig()).load_model(
        model_config=ModelConfig.from_server_args(server), device_config=DeviceConfig("cpu")
    )
    found = rank_server.parameters_of(model)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return found


def join_world(world: dict[str, int]) -> None:
    """SGLang's world group, over gloo, of `size` ranks."""
    parallel_state.init_distributed_environment(
        world_size=world["size"],
        rank=world["rank"],
        local_rank=world["local_rank"],
        distributed_init_method="env://",
        backend="gloo",
    )


def _class_of(name: str) -> tuple[Any, str]:
    module = name.removesuffix("ForCausalLM").lower()
    return getattr(import_module(f"sglang.srt.models.{module}"), name), name


def _stand_in_for_what_is_not_here() -> None:
    """What no load comes to: parsers of answers, and the kernels of rotations."""
    for name in ("partial_json_parser", "vllm"):
        for part in ("", ".core", ".core.options", ".core.exceptions", "._custom_ops"):
            sys.modules.setdefault(name + part, MagicMock())
