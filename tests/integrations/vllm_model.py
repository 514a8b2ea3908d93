"""vLLM's own model, loaded by vLLM's own loader in the groups of a job. For ranks of the tests."""

from __future__ import annotations

from typing import Any

import rank_server
import torch
from vllm.config import set_current_vllm_config
from vllm.config.logging import LoggingConfig
from vllm.distributed import parallel_state
from vllm.engine.arg_utils import EngineArgs
from vllm.logger import configure_logging
from vllm.model_executor.layers.fused_moe.experts import cpu_moe
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.models import llama, mixtral, registry  # noqa: F401 - before ranks fork
from vllm.utils.argparse_utils import FlexibleArgumentParser


def load_model(
    checkpoint: str, world: dict[str, int], options: list[str] | None = None
) -> dict[str, Any]:
    """The parameters of this rank: a checksum of each, and their bytes.

    `world`: rank, size and local_rank, and how many ranks are tensor ("tp") and pipeline ("pp")
    parallel.
    """
    # Another process would import vLLM once more, to look at a class that this one has.
    registry._run_in_subprocess = lambda function: function()
    torch.accelerator.empty_cache = lambda: None  # without an accelerator it raises
    # Kernels that are not here; no load comes to what they lay out. Where a processor has AMX, vLLM
    # lays out every small matrix for one of them.
    cpu_moe.cpu_prepack_moe_weight = lambda weight, _isa: weight
    torch.cpu._is_amx_tile_supported = lambda: False
    torch.set_num_threads(1)
    configure_logging(LoggingConfig())
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    parallel = {"tensor": world["tp"], "pipeline": world["pp"]}
    sizes = [f"--{name}-parallel-size={size}" for name, size in parallel.items()]
    fixed = ["--dtype", "bfloat16", "--skip-tokenizer-init", "--enforce-eager"]
    arguments = parser.parse_args(["--model", checkpoint, *fixed, *sizes, *(options or [])])
    config = EngineArgs.from_cli_args(arguments).create_engine_config()
    with set_current_vllm_config(config):
        parallel_state.init_distributed_environment(
            world["size"], world["rank"], "env://", world["local_rank"], "gloo"
        )
        parallel_state.initialize_model_parallel(world["tp"], world["pp"])
        loader = get_model_loader(config.load_config)
        model = loader.load_model(vllm_config=config, model_config=config.model_config)
    found = rank_server.parameters_of(model)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return found
