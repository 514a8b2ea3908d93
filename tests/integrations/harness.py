"""What the tests of the integrations share: released engines in environments of their own.

`make engines` makes the environments and installs the built wheel into them; where one could not be
made, its tests skip with the reason that it left. The engine runs in processes of its own
(rank_server.py). No test judges by a clock.

PYTEST_DONT_REWRITE: the tests import it before pytest does.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY / "tests" / "python"), str(REPOSITORY / "benchmarks" / "demo")]

# The fixtures among them are the tests' as well.
from conftest import (  # noqa: E402
    MIB,
    MakeMount,
    clean_environment,
    make_mount,
    refaulted_bytes,
    resident_bytes,
)

from checkpoint import write_checkpoint  # noqa: E402

__all__ = ["MIB", "MakeMount", "make_mount", "resident_bytes"]

ENVIRONMENTS = Path(os.environ.get("SHARDAHEAD_ENGINES", REPOSITORY / "build" / "engines"))
SOURCES = os.environ.get("SHARDAHEAD_ENGINE_SOURCES")
START_SECONDS = 180.0  # engines import for a minute where cores are few
LIMIT_SECONDS = 120.0  # of one job: it ends what hangs
# No model is made of it: the engines look at it when they check their arguments.
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


@dataclass(frozen=True)
class RankResult:
    """What one process returned, and what it printed and logged."""

    result: Any
    log: str


class Engine:
    """A process that has imported an engine and forks the ranks of one job after the other.

    `script` is in this folder and ends in rank_server.serve(). One job at a time.
    """

    def __init__(self, environment: str, script: str, folder: Path, env: dict[str, str]) -> None:
        self._log = folder / f"{Path(script).stem}.log"
        python = python_of(environment)
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [str(python), str(HERE / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**without_ours(), "OMP_NUM_THREADS": "1", **env},
            )
        self._answer(START_SECONDS)

    def run(
        self,
        function: str,
        ranks: Sequence[dict[str, Any]],
        *,
        env: Sequence[dict[str, str]] | dict[str, str] | None = None,
    ) -> list[RankResult]:
        """Calls `function(**arguments)` in a process for each of `ranks`, all at once.

        `env`: variables of all of them, or of each. Each must end with status 0.
        """
        variables = list(env) if isinstance(env, Sequence) else [env or {}] * len(ranks)
        job = {
            "function": function,
            "ranks": [{"env": e, "arguments": a} for e, a in zip(variables, ranks, strict=True)],
            "limit_s": LIMIT_SECONDS,
        }
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        found = self._answer(LIMIT_SECONDS + 30)["ranks"]
        for rank, one in enumerate(found):
            assert one["status"] == 0, f"rank {rank}: status {one['status']}\n{one['log']}"
        return [RankResult(one["result"], one["log"]) for one in found]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            self.close()
            pytest.fail(f"no answer after {seconds} s: {self._log.read_text()}")
        line = self._process.stdout.readline()
        if not line:
            pytest.fail(f"the engine's process ended: {self._log.read_text()}")
        found: dict[str, Any] = json.loads(line)
        return found


def python_of(environment: str) -> Path:
    """The interpreter of an environment; skips where it could not be made."""
    folder = ENVIRONMENTS / environment
    python = folder / "bin" / "python"
    if not (folder / ".wheel").exists() or not python.exists():
        reason = ENVIRONMENTS / f"{environment}.reason"
        said = reason.read_text().strip() if reason.exists() else "run `make engines`"
        pytest.skip(f"no environment {environment} here: {said}")
    return python


def sources_of(environment: str) -> Path:
    """The sources of an engine's release, with its tests; skips where there are none."""
    given = Path(SOURCES, environment) if SOURCES else None
    if given is not None and given.is_dir():
        return given
    fetched = ENVIRONMENTS / "sources"
    if (fetched / environment / ".made").exists():
        return fetched / environment
    reason = fetched / f"{environment}.reason"
    said = reason.read_text().strip() if reason.exists() else "run `make test-engines`"
    pytest.skip(f"no tests of {environment} here: {said}")


def without_ours() -> dict[str, str]:
    """The environment without what the product looks at, and without other packages. An engine is
    compiled by its first import: later ones take half as long if they may find that."""
    removed = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in clean_environment().items() if name not in removed}


@pytest.fixture(scope="session")
def start_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """start_engine(environment, script, **env): an Engine, the same one for the same arguments."""
    engines: dict[tuple[Any, ...], Engine] = {}
    with ExitStack() as stack:

        def start(environment: str, script: str, **env: str) -> Engine:
            key = (environment, script, *sorted(env.items()))
            if key not in engines:
                folder = tmp_path_factory.mktemp("engine")
                engines[key] = Engine(environment, script, folder, env)
                stack.callback(engines[key].close)
            return engines[key]

        yield start


@dataclass(frozen=True)
class Checkpoint:
    """Shards with an index, of mixed dtypes. `size_bytes` is of the shards."""

    folder: Path
    files: tuple[Path, ...]
    size_bytes: int


def make_checkpoint(folder: Path, size_bytes: int, shards: int) -> Checkpoint:
    write_checkpoint(folder, size_bytes, shards, divisor=8)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    files = tuple(sorted(folder.glob("*.safetensors")))
    return Checkpoint(folder, files, sum(path.stat().st_size for path in files))


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """64 MiB in 6 shards."""
    return make_checkpoint(tmp_path_factory.mktemp("sharded"), 64 * MIB, 6)


class Served:
    """Counts what a mount serves of a checkpoint: `check()` wants each byte of it once."""

    def __init__(self, mount: Any, checkpoint: Checkpoint) -> None:
        self._mount, self._checkpoint = mount, checkpoint
        self._refaulted = refaulted_bytes()

    def check(self, times: float = 1.0) -> None:
        self._mount.wait_until_idle()
        served, wanted = self._mount.counters().bytes_served, times * self._checkpoint.size_bytes
        assert served >= wanted
        # The index and config.json lie beside the shards.
        most = wanted + 2 * MIB
        if most < served < most + refaulted_bytes() - self._refaulted:
            pytest.skip("the kernel reclaimed pages meanwhile, and they were read again")
        assert served <= most
