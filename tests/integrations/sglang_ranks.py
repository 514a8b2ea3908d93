"""What ranks of SGLang do in the tests: SGLang's own loader with its own configuration objects.

Runs under the interpreter of SGLang's environment, on CPU tensors; started by harness.Engine.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import own_tests
import rank_server
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "compare"))
from sglang_on_cpu import pass_over_torchvision

pass_over_torchvision()

from sglang.srt import plugins  # noqa: E402
from sglang.srt.configs.load_config import LoadConfig  # noqa: E402
from sglang.srt.model_loader import loader, weight_utils  # noqa: E402
from sglang.srt.runtime_context import get_model, publish  # noqa: E402
from sglang.srt.server_args import prepare_server_args  # noqa: E402
from sglang_model import join_world, load_model  # noqa: E402

FUNCTIONS = (
    "_prefetch_all_checkpoints",
    "safetensors_weights_iterator",
    "buffered_multi_thread_safetensors_weights_iterator",
)


def load(
    checkpoint: str,
    *,
    options: list[str] | None = None,
    plugin: bool = True,
    world: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Every tensor that DefaultModelLoader gives for this command line, as a digest of each.

    `world`: rank, size and local_rank of SGLang's world group, made over gloo, whose ranks meet at
    their first tensor; without it there is none.
    """
    default = _start(checkpoint, options, plugin)
    if world is not None:
        join_world(world)
    source = loader.DefaultModelLoader.Source(checkpoint, None)
    weights = default._get_weights_iterator(source)
    found = rank_server.digest(weights if world is None else _met(weights))
    found["extra_config"] = default.load_config.model_loader_extra_config
    if world is not None:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return found


def _met(weights: Iterator[Any]) -> Iterator[Any]:
    """Else a rank could be done, and drop the files, before another has begun."""
    for number, weight in enumerate(weights):
        if number == 0:
            torch.distributed.barrier()
        yield weight
        del weight


def load_started_early(checkpoint: str, until: str) -> dict[str, Any]:
    """As SGLang's startup overlap does: prefetch, do something else, then load, then stop. The
    prefetch is "done", "stopped" or still "running" when the load begins.
    """
    default = _start(checkpoint, [], plugin=True)
    files = sorted(str(path) for path in Path(checkpoint).glob("*.safetensors"))
    source = loader.DefaultModelLoader.Source(checkpoint, None)
    resolved = loader.DefaultModelLoader.ResolvedSource(source, checkpoint, tuple(files), True)
    handle = default.start_checkpoint_prefetch((resolved,), num_threads=4)
    if until == "stopped":
        handle.stop()
    elif until == "done":
        handle.wait(60.0)
    early = {"failed": handle.failed, "cancelled": handle.cancelled, "done": handle.done}
    weights = default._get_weights_iterator(
        source,
        resolved_source=resolved,
        startup_prefetch_started=True,
        startup_prefetch_active=not handle.done,
    )
    found = rank_server.digest(weights)
    handle.stop(timeout=60.0)
    assert handle.done
    return {**found, "early": early, "errors": [str(error) for _, error in handle.errors]}


def prefetch(checkpoint: str, num_threads: int, by: str = "loader") -> dict[str, Any]:
    """What the handle of SGLang's prefetch says, by either of its import paths."""
    _start(checkpoint, [], plugin=True)
    files = sorted(str(path) for path in Path(checkpoint).glob("*.safetensors"))
    module = {"loader": loader, "weight_utils": weight_utils}[by]
    handle = module._prefetch_all_checkpoints(files, num_threads=num_threads)
    handle.wait(timeout=60.0)
    handle.stop(timeout=60.0)
    handle.stop()
    found: dict[str, Any] = handle.report().to_dict()
    states = {name: getattr(handle, name) for name in ("done", "failed", "cancelled")}
    return {
        **found,
        **states,
        "handle_errors": [(path, type(error).__name__) for path, error in handle.errors],
    }


def cancelled_prefetch(checkpoint: str) -> dict[str, Any]:
    """A prefetch that takes longer than anyone waits."""
    _start(checkpoint, [], plugin=True)
    files = sorted(str(path) for path in Path(checkpoint).glob("*.safetensors"))
    handle = weight_utils._prefetch_all_checkpoints(files)
    wait_error = _error(lambda: handle.wait(timeout=0))
    running = not handle.done
    handle.cancel()
    handle.wait(timeout=60.0)
    states = {name: getattr(handle, name) for name in ("done", "failed", "cancelled")}
    return {**states, "wait_error": wait_error, "running": running}


def terminated(checkpoint: str, options: list[str]) -> dict[str, Any]:
    """SIGTERM in the middle of a load: see rank_server.terminated."""
    default = _start(checkpoint, options, plugin=True)
    source = loader.DefaultModelLoader.Source(checkpoint, None)
    return rank_server.terminated(default._get_weights_iterator(source))


def failing(checkpoint: str, options: list[str]) -> Any:
    """A load that ends by an OSError: see rank_server.failing."""
    default = _start(checkpoint, options, plugin=True)
    source = loader.DefaultModelLoader.Source(checkpoint, None)
    return rank_server.failing(default._get_weights_iterator(source))


def broken_off(checkpoint: str) -> dict[str, int]:
    """How many threads of Shardahead there are during a load, and after it was broken off."""
    default = _start(checkpoint, [], plugin=True)
    weights = default._get_weights_iterator(loader.DefaultModelLoader.Source(checkpoint, None))
    next(weights)
    during = _threads()
    del weights
    deadline = time.monotonic() + 30
    looks_without = 0  # a thread has its name once it has run, which may be after the first look
    while looks_without < 50 and time.monotonic() < deadline:
        looks_without = 0 if _threads() else looks_without + 1
        time.sleep(0.01)
    return {"during": during, "after": _threads()}


def _threads() -> int:
    names = []
    for comm in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            names.append(comm.read_text())
    return sum(name.startswith("shardahead-") for name in names)


def errors(checkpoint: str) -> dict[str, str]:
    """What SGLang's functions raise for a file that is not there, and for no threads."""
    _start(checkpoint, [], plugin=True)
    missing = [f"{checkpoint}/no"]
    iterator = weight_utils.safetensors_weights_iterator
    return {
        "missing": _error(lambda: list(iterator(missing, prefetch=True))),
        "no threads": _error(lambda: weight_utils._prefetch_all_checkpoints(missing, 0)),
    }


def _error(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return ""


def untouched(drop: str | None = None, without: str | None = None) -> dict[str, Any]:
    """Which functions are SGLang's own after the plugins were loaded, twice.

    `drop`: a function of weight_utils that is not there; `without`: a parameter that its
    safetensors iterator has not.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    if drop is not None:
        delattr(weight_utils, drop)
    if without is not None:
        _lose_parameter(without)
    before = _functions()
    plugins.load_plugins()
    plugins._plugins_loaded = False
    plugins.load_plugins()
    after = _functions()
    return {
        "own": sorted(name for name in before if after[name] is before[name]),
        "all": sorted(before),
        "version": version("sglang"),
    }


def engines_own_tests(**tests: Any) -> dict[str, str]:
    """How SGLang's own tests end with its plugins loaded: arguments of own_tests.outcomes."""
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    # SGLang's test tools import it for their benchmarks.
    sys.modules.setdefault("datasets", Mock())
    plugins.load_plugins()
    from shardahead.integrations import sglang_weights

    return own_tests.outcomes(sglang_weights, **tests)


def _lose_parameter(name: str) -> None:
    original = weight_utils.safetensors_weights_iterator

    def safetensors_weights_iterator(hf_weights_files: Any, **other: Any) -> Any:
        return original(hf_weights_files, **other)

    assert name == "prefetch"
    weight_utils.safetensors_weights_iterator = safetensors_weights_iterator
    loader.safetensors_weights_iterator = safetensors_weights_iterator


def _functions() -> dict[str, Any]:
    found = {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in (weight_utils, loader)
        for name in FUNCTIONS
        if hasattr(module, name)
    }
    of_class = "_get_weights_iterator"
    return {**found, of_class: loader.DefaultModelLoader.__dict__[of_class]}


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
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    config = LoadConfig(
        load_format=get_model().load_format,
        download_dir=get_model().download_dir,
        model_loader_extra_config=get_model().model_loader_extra_config,
    )
    return loader.get_model_loader(config)


if __name__ == "__main__":
    served = (
        load,
        load_model,
        load_started_early,
        prefetch,
        terminated,
        failing,
        cancelled_prefetch,
        broken_off,
        errors,
        untouched,
        engines_own_tests,
    )
    rank_server.serve({function.__name__: function for function in served})
