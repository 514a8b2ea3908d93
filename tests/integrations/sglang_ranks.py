"""What ranks of SGLang do in the tests: SGLang's own loader with its own configuration objects.

Runs under the interpreter of SGLang's environment, on CPU tensors; started by harness.Engine.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import rank_server
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "compare"))
from sglang_on_cpu import pass_over_torchvision

pass_over_torchvision()

from sglang.srt import plugins  # noqa: E402
from sglang.srt.configs.load_config import LoadConfig  # noqa: E402
from sglang.srt.distributed import parallel_state  # noqa: E402
from sglang.srt.model_loader import loader  # noqa: E402
from sglang.srt.runtime_context import get_model, publish  # noqa: E402
from sglang.srt.server_args import prepare_server_args  # noqa: E402


def load(
    checkpoint: str,
    *,
    options: list[str] | None = None,
    plugin: bool = True,
    world: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Every tensor that DefaultModelLoader gives for this command line, as a digest of each.

    `world`: rank, size and local_rank of SGLang's world group, made over gloo; without it there is
    none.
    """
    default = _start(checkpoint, options, plugin)
    if world is not None:
        parallel_state.init_distributed_environment(
            world_size=world["size"],
            rank=world["rank"],
            local_rank=world["local_rank"],
            distributed_init_method="env://",
            backend="gloo",
        )
    source = loader.DefaultModelLoader.Source(checkpoint, None)
    found = rank_server.digest(default._get_weights_iterator(source))
    if world is not None:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return found


def _start(checkpoint: str, options: list[str] | None, plugin: bool) -> Any:
    """As the processes of the server do it: logging, plugins, arguments, loader."""
    torch.set_num_threads(1)
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    if plugin:
        plugins.load_plugins()
    arguments = ["--model-path", checkpoint, "--device", "cpu", *(options or [])]
    publish(prepare_server_args(arguments), role="scheduler")
    config = LoadConfig(
        load_format=get_model().load_format,
        download_dir=get_model().download_dir,
        model_loader_extra_config=get_model().model_loader_extra_config,
    )
    return loader.get_model_loader(config)


if __name__ == "__main__":
    rank_server.serve({"load": load})
