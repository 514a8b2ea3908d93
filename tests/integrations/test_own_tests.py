"""The engines' own tests of what the plugins take the place of, without the plugin and with it.

They come from the sources of the release, which make-own-tests.sh gets where they are in a package.
A test that passes without the plugin passes with it, unless DIFFERENT says why it does not. That is
asked twice: as the engines run them, where files of this machine stay the engine's, and as if all
files were on a network filesystem, where Shardahead loads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from harness import ENVIRONMENTS, Engine, sources_of

pytest_plugins = ["harness"]


@dataclass(frozen=True)
class OwnTests:
    """`files` that are there are run, all but the ids in `left_out`."""

    script: str
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()


_SGLANG = "test/registered/unit/model_loader"
_VLLM = "tests/model_executor"
OF_SGLANG = OwnTests(
    "sglang_ranks.py",
    (
        f"{_SGLANG}/test_prefetch_checkpoints.py",
        f"{_SGLANG}/test_checkpoint_prefetch_cleanup.py",
        f"{_SGLANG}/test_weight_utils.py",
    ),
)
OF_VLLM = OwnTests(
    "vllm_ranks.py",
    (
        f"{_VLLM}/model_loader/test_ep_weight_filter.py",
        f"{_VLLM}/model_loader/test_expert_substitution.py",
        f"{_VLLM}/model_loader/test_filter_duplicate_safetensors.py",
        f"{_VLLM}/model_loader/test_registry.py",
        f"{_VLLM}/test_weight_utils.py",
    ),
    (  # download models
        f"{_VLLM}/model_loader/test_ep_weight_filter.py::TestSafetensorsWeightsIteratorWithEpFilter",
        f"{_VLLM}/test_weight_utils.py::test_download_weights_from_hf",
    ),
)

_OF_PREFETCH = f"{_SGLANG}/test_prefetch_checkpoints.py::TestPrefetchCheckpoints"
_OF_DISPATCH = f"{_SGLANG}/test_prefetch_checkpoints.py::TestPrefetchDispatch"
_THREADS = (
    "beside a prefetch SGLang loads with one thread, so that they do not read against each other; "
    "Shardahead's iterators wait for what its prefetch has begun, so SGLang's threads stay on"
)
DIFFERENT = {
    f"{_OF_DISPATCH}::test_prefetch_uses_single_thread_for_default_config": _THREADS,
    f"{_OF_DISPATCH}::test_startup_prefetch_reuses_existing_background_handle": _THREADS,
}
DIFFERENT_WHERE_IT_LOADS = {
    f"{_OF_PREFETCH}::test_buffered_loader_drops_cache_after_each_loaded_shard": (
        "it counts calls of SGLang's function that drops a file; Shardahead drops files by itself, "
        "once the last local rank is done with them"
    ),
}


@pytest.mark.parametrize(
    ("environment", "own"),
    [
        ("sglang", OF_SGLANG),
        ("sglang-previous", OF_SGLANG),
        ("vllm", OF_VLLM),
        ("vllm-previous", OF_VLLM),
    ],
)
def test_an_engines_own_tests_pass_with_the_plugin(
    start_engine: Callable[..., Engine], environment: str, own: OwnTests
) -> None:
    sources = sources_of(environment)
    tests = {
        "pytest_folder": str(ENVIRONMENTS / "pytest"),
        "sources": str(sources),
        "files": [file for file in own.files if (sources / file).exists()],
        "left_out": own.left_out,
    }
    assert tests["files"], f"{sources} has none of {own.files}"
    without, installed, loading = start_engine(environment, own.script).run(
        "engines_own_tests",
        [tests, tests, {**tests, "everything": True}],
        env=[{"SHARDAHEAD_DISABLE": "1"}, {}, {}],
    )
    assert "Shardahead loads" not in without.log
    assert "Shardahead loads" in loading.log
    passing = {test for test, outcome in without.result.items() if outcome == "passed"}
    assert passing, without.log
    failing = [
        {test for test in passing if found.result.get(test) != "passed"}
        for found in (installed, loading)
    ]
    # Shown with PYTEST=-rP.
    print(f"{environment}: {len(without.result)} tests, {len(passing)} pass without the plugin")
    print(f"of these fail with it: {len(failing[0])}, where Shardahead loads: {len(failing[1])}")
    assert failing[0] == passing & DIFFERENT.keys(), installed.log
    assert failing[1] == passing & (DIFFERENT | DIFFERENT_WHERE_IT_LOADS).keys(), loading.log
