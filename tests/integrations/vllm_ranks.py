"""What ranks of vLLM do in the tests: vLLM's own loader with its own configuration objects.

Runs under the interpreter of vLLM's environment, on CPU tensors; started by harness.Engine.
"""

from __future__ import annotations

import glob
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import own_tests
import rank_server
import torch
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform

# The released package is for GPUs; on a machine without one it would not make its configuration.
vllm.platforms._current_platform = CpuPlatform()

from vllm.config import VllmConfig, set_current_vllm_config  # noqa: E402
from vllm.config.logging import LoggingConfig  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.logger import configure_logging  # noqa: E402
from vllm.model_executor.model_loader import default_loader, get_model_loader, weight_utils  # noqa: E402
from vllm.plugins import load_general_plugins  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402
from vllm_model import load_model  # noqa: E402

FUNCTIONS = (
    "safetensors_weights_iterator",
    "multi_thread_safetensors_weights_iterator",
    "pt_weights_iterator",
    "multi_thread_pt_weights_iterator",
    "_prefetch_all_checkpoints",
)
STOPPED_SECONDS = 25.0
OWN = {name: getattr(weight_utils, name) for name in FUNCTIONS}


def load(
    checkpoint: str,
    options: list[str] | None = None,
    *,
    experts: list[int] | None = None,
    second: str | None = None,
    unused: str | None = None,
    stop_after: int | None = None,
) -> dict[str, Any]:
    """Every tensor that the loader of this command line gives, as a digest of each.

    `experts`: those of this rank, as with --enable-ep-weight-filter. `second`: a checkpoint of
    secondary weights. `unused`: tensors whose names begin so are not loaded. `stop_after`: the loop
    is left after so many tensors, and `threads` in the answer are those that still run then.
    """
    loader, config = _loader(checkpoint, options)
    loader.local_expert_ids = None if experts is None else set(experts)
    model: Any = SimpleNamespace()
    if second is not None:
        model.secondary_weights = [
            default_loader.DefaultModelLoader.Source(second, None, prefix="second.")
        ]
    if unused is not None:
        model.is_unused_checkpoint_weight = lambda name: name.startswith(unused)
    with set_current_vllm_config(config):
        weights = loader.get_all_weights(SimpleNamespace(model=checkpoint, revision=None), model)
        if stop_after is not None:
            found = rank_server.digest(next(weights) for _ in range(stop_after))
            weights.close()
            return {**found, "threads": _threads_left()}
        return rank_server.digest(weights)


def terminated(checkpoint: str, options: list[str]) -> Any:
    """SIGTERM in the middle of a load: see rank_server.terminated."""
    return _through(rank_server.terminated, checkpoint, options)


def failing(checkpoint: str, options: list[str]) -> Any:
    """A load that ends by an OSError: see rank_server.failing."""
    return _through(rank_server.failing, checkpoint, options)


def _through(what: Callable[..., Any], checkpoint: str, options: list[str]) -> Any:
    loader, config = _loader(checkpoint, options)
    with set_current_vllm_config(config):
        model = SimpleNamespace(model=checkpoint, revision=None)
        return what(loader.get_all_weights(model, SimpleNamespace()))


def prefetch(
    checkpoint: str,
    world: dict[str, Any] | None = None,
    by: str = "weight_utils",
    **options: int,
) -> Any:
    """vLLM's prefetch alone, as its own iterator calls it; returns when it has ended.

    `world`: rank, size and port of a process group over gloo. `by`: "weight_utils", where vLLM
    looks it up, or "importer", a module of vLLM that had imported it before there were plugins.
    """
    importer: Any = ModuleType("vllm.importer")
    importer._prefetch_all_checkpoints = OWN["_prefetch_all_checkpoints"]
    sys.modules[importer.__name__] = importer
    load_general_plugins()
    module = {"weight_utils": weight_utils, "importer": importer}[by]
    if world is not None:
        _join(world)
    files = sorted(glob.glob(f"{checkpoint}/*.safetensors"), key=weight_utils._natural_sort_key)
    handle = module._prefetch_all_checkpoints(files, **options)
    handle.wait(60)
    report = handle.report().to_dict()
    if world is not None:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return report


def look(calls: int = 1, changed: str | None = None, unregister: bool = False) -> dict[str, Any]:
    """Which functions are vLLM's own after `calls` calls of the plugin, by both of their names, and
    whether the load format is known. `changed`: this function has other parameters.
    """
    own = dict(OWN)
    if changed is not None:
        own[changed] = lambda paths: paths
        setattr(weight_utils, changed, own[changed])
    load_general_plugins()
    if calls > 1:
        from shardahead.integrations import vllm as plugin

        for _ in range(calls - 1):
            plugin.register()
    now = {name: getattr(weight_utils, name) for name in FUNCTIONS}
    if unregister:
        from shardahead.integrations import vllm as plugin

        plugin.unregister()
    return {
        "own": [name for name in FUNCTIONS if getattr(weight_utils, name) is own[name]],
        "own_of_loader": [
            name for name in FUNCTIONS if getattr(default_loader, name, None) is own[name]
        ],
        "wrapped": [
            name for name in FUNCTIONS if getattr(now[name], "__wrapped__", 0) is own[name]
        ],
        "formats": _knows_format(),
        "version": vllm.__version__,
    }


def engines_own_tests(**tests: Any) -> dict[str, str]:
    """How vLLM's own tests end with its plugins loaded: arguments of own_tests.outcomes."""
    configure_logging(LoggingConfig())
    load_general_plugins()
    from shardahead.integrations import vllm_options

    return own_tests.outcomes(vllm_options, **tests)


def _threads_left() -> int:
    """How many threads of ours are left after a while in which those that were stopped end."""
    deadline = time.monotonic() + STOPPED_SECONDS
    while True:
        names = [Path(f"/proc/self/task/{task}/comm") for task in os.listdir("/proc/self/task")]
        left = sum(name.exists() and "shardahead" in name.read_text() for name in names)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _knows_format() -> bool:
    from vllm.model_executor import model_loader

    return "shardahead" in model_loader._LOAD_FORMAT_TO_MODEL_LOADER


def refused(options: list[str]) -> str:
    """What vLLM says to this command line."""
    try:
        _loader("/nowhere", options)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def _loader(checkpoint: str, options: list[str] | None) -> tuple[Any, VllmConfig]:
    """As the processes of the server do it: arguments, with the plugins loaded, then the loader."""
    torch.set_num_threads(1)
    configure_logging(LoggingConfig())
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    arguments = parser.parse_args(["--model", checkpoint, *(options or [])])
    config = EngineArgs.from_cli_args(arguments).create_load_config()
    return get_model_loader(config), VllmConfig(load_config=config)


def _join(world: dict[str, Any]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(world["port"]))
    torch.distributed.init_process_group("gloo", rank=world["rank"], world_size=world["size"])


if __name__ == "__main__":
    served = (load, load_model, terminated, failing, prefetch, look, refused, engines_own_tests)
    rank_server.serve({function.__name__: function for function in served})
