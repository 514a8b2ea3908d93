"""The vLLM plugin, against a stand-in of the functions that it relies upon.

Whether vLLM has them so is tested in vLLM itself (tests/integrations/test_vllm.py).
"""
# ruff: noqa: ARG001, ARG002 - the parameters of the stand-in are vLLM's

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402

from shardahead.integrations import seams, vllm  # noqa: E402

UTILS = "vllm.model_executor.model_loader.weight_utils"
LOADER = "vllm.model_executor.model_loader.default_loader"
Weights = Iterator[tuple[str, Any]]


def safetensors_weights_iterator(
    hf_weights_files: list[str],
    use_tqdm_on_load: bool,
    safetensors_load_strategy: str | None = None,
    local_expert_ids: set[int] | None = None,
    *,
    safetensors_prefetch_num_threads: int = 8,
    safetensors_prefetch_block_size: int = 2**24,
) -> Weights:
    for path in hf_weights_files:
        with safetensors.safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118
                if not should_skip_weight(name, local_expert_ids):
                    yield name, shard.get_tensor(name)


def multi_thread_safetensors_weights_iterator(
    hf_weights_files: list[str], use_tqdm_on_load: bool, max_workers: int = 4
) -> Weights:
    yield from safetensors_weights_iterator(hf_weights_files, use_tqdm_on_load)


def pt_weights_iterator(
    hf_weights_files: list[str], use_tqdm_on_load: bool, pt_load_map_location: str = "cpu"
) -> Weights:
    for path in hf_weights_files:
        yield from torch.load(path, map_location=pt_load_map_location).items()


def multi_thread_pt_weights_iterator(
    hf_weights_files: list[str],
    use_tqdm_on_load: bool,
    pt_load_map_location: str = "cpu",
    max_workers: int = 4,
) -> Weights:
    yield from pt_weights_iterator(hf_weights_files, use_tqdm_on_load)


def _prefetch_all_checkpoints(
    sorted_files: list[str], num_prefetch_threads: int = 8, block_size: int = 2**24
) -> None:
    if num_prefetch_threads < 1:
        raise ValueError("too few")


def should_skip_weight(weight_name: str, local_expert_ids: set[int] | None) -> bool:
    return local_expert_ids is not None and weight_name.startswith("b")


def enable_tqdm(use_tqdm_on_load: bool) -> bool:
    return use_tqdm_on_load


def _natural_sort_key(filepath: str) -> str:
    return filepath


class DefaultModelLoader:
    def _get_weights_iterator(self, source: Any) -> None:
        pass


FUNCTIONS = (
    safetensors_weights_iterator,
    multi_thread_safetensors_weights_iterator,
    pt_weights_iterator,
    multi_thread_pt_weights_iterator,
    _prefetch_all_checkpoints,
)


@contextmanager
def no_bar(**_options: Any) -> Iterator[Any]:
    yield SimpleNamespace(update=lambda _count: None)


@pytest.fixture
def utils(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stand-in of weight_utils; all modules are gone afterwards."""
    known: dict[str, type] = {}
    contents: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.config": {"get_current_vllm_config_or_none": lambda: None},
        "vllm.model_executor": {},
        "vllm.model_executor.model_loader": {
            "_LOAD_FORMAT_TO_MODEL_LOADER": known,
            "register_model_loader": lambda load_format: lambda c: known.update({load_format: c}),
        },
        UTILS: {
            **{function.__name__: function for function in FUNCTIONS},
            "should_skip_weight": should_skip_weight,
            "enable_tqdm": enable_tqdm,
            "_natural_sort_key": _natural_sort_key,
            "_BAR_FORMAT": "",
            "tqdm": no_bar,
        },
        LOADER: {
            "DefaultModelLoader": DefaultModelLoader,
            **{function.__name__: function for function in FUNCTIONS[:-1]},
        },
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__path__ = []
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, last = name.rpartition(".")
        if parent:
            monkeypatch.setattr(sys.modules[parent], last, module, raising=False)
    for name in ("vllm_weights", "vllm_loader"):
        monkeypatch.delitem(sys.modules, f"shardahead.integrations.{name}", raising=False)
    monkeypatch.setattr(vllm, "_replacements", [])
    monkeypatch.setattr(seams, "_declined", set())
    monkeypatch.setattr(vllm, "_log_as_vllm_does", lambda: None)
    yield sys.modules[UTILS]
    for name in ("vllm_weights", "vllm_loader"):
        sys.modules.pop(f"shardahead.integrations.{name}", None)


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"model-{number}.safetensors" for number in range(2)]
    for number, path in enumerate(paths):
        tensors = {f"a{number}": torch.ones(1000), f"c{number}": torch.ones(8)}
        save_file({**tensors, f"b{number}": torch.ones(7, dtype=torch.bfloat16)}, path)
    return [str(path) for path in paths]


def own(module: ModuleType) -> list[str]:
    return [f.__name__ for f in FUNCTIONS if getattr(module, f.__name__, None) is f]


def loads_itself(weights: Any, caplog: pytest.LogCaptureFixture) -> bool:
    """Whether Shardahead did not load."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "shardahead"):
        list(weights)
    return not any("Shardahead loads" in record.getMessage() for record in caplog.records)


def test_the_entry_point_is_the_plugin() -> None:
    (found,) = [e for e in entry_points(group="vllm.general_plugins") if e.name == "shardahead"]
    assert found.load() is vllm.register


def test_each_function_is_replaced_wherever_it_is_and_put_back(utils: ModuleType) -> None:
    loader = sys.modules[LOADER]
    vllm.register()
    first = utils.safetensors_weights_iterator
    vllm.register()
    assert own(utils) == own(loader) == []
    assert utils.safetensors_weights_iterator is loader.safetensors_weights_iterator is first
    vllm.unregister()
    assert len(own(utils)) == 5
    assert len(own(loader)) == 4


@pytest.mark.parametrize("text", ["1", "maybe"])
def test_switched_off_only_the_load_format_is_known(
    utils: ModuleType, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SHARDAHEAD_DISABLE", text)
    vllm.register()
    assert len(own(utils)) == 5
    known = sys.modules["vllm.model_executor.model_loader"]._LOAD_FORMAT_TO_MODEL_LOADER
    assert list(known) == ["shardahead"]


@pytest.mark.parametrize("ids", [None, {0}])
def test_prefetch_gives_the_same_in_the_same_order(
    utils: ModuleType, shards: list[str], ids: set[int] | None, caplog: pytest.LogCaptureFixture
) -> None:
    expected = list(safetensors_weights_iterator(shards, False, None, ids))
    vllm.register()
    found = list(utils.safetensors_weights_iterator(shards[::-1], False, "prefetch", ids))
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(found, expected, strict=True))
    assert not loads_itself(utils.safetensors_weights_iterator(shards, False, "prefetch"), caplog)


@pytest.mark.parametrize("strategy", ["lazy", "eager", "torchao"])
def test_other_strategies_are_vllms(
    utils: ModuleType, shards: list[str], strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    vllm.register()
    assert loads_itself(utils.safetensors_weights_iterator(shards, False, strategy), caplog)


def test_files_that_are_named_twice_are_vllms(
    utils: ModuleType, shards: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    vllm.register()
    twice = [*shards, shards[0]]
    assert loads_itself(utils.safetensors_weights_iterator(twice, False, "prefetch"), caplog)


def test_a_new_argument_that_is_given_is_vllms(
    utils: ModuleType,
    shards: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def newer(
        hf_weights_files: list[str],
        use_tqdm_on_load: bool,
        safetensors_load_strategy: str | None = None,
        local_expert_ids: set[int] | None = None,
        safetensors_prefetch_num_threads: int = 8,
        safetensors_prefetch_block_size: int = 2**24,
        something: int = 0,
    ) -> Weights:
        yield from safetensors_weights_iterator(hf_weights_files, use_tqdm_on_load)

    monkeypatch.setattr(utils, "safetensors_weights_iterator", newer)
    vllm.register()
    load: Callable[..., Any] = utils.safetensors_weights_iterator
    assert not loads_itself(load(shards, False, "prefetch"), caplog)
    assert loads_itself(load(shards, False, "prefetch", something=1), caplog)


def test_a_model_that_has_no_place_for_a_tensor_is_asked_while_it_is_loaded(
    utils: ModuleType, shards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loader:
        def get_all_weights(self, model_config: Any, model: Any) -> Weights:
            yield from self._get_weights_iterator(SimpleNamespace(prefix="model."))

        def _get_weights_iterator(self, source: Any) -> Weights:
            load: Callable[..., Weights] = utils.safetensors_weights_iterator
            return load(shards, False, "prefetch")

    class PPMissingLayer:
        pass

    class Model:
        config = SimpleNamespace(tie_word_embeddings=False)

        def named_modules(self) -> list[tuple[str, Any]]:
            return [("", self), ("model.a0", PPMissingLayer()), ("model.a1", object())]

    own_methods = Loader.get_all_weights, Loader._get_weights_iterator
    monkeypatch.setattr(sys.modules[LOADER], "DefaultModelLoader", Loader)
    vllm.register()
    from shardahead.integrations import vllm_weights

    asked = []

    def load(*arguments: Any, used_rows: Any, **options: Any) -> Any:
        asked.append(used_rows)
        return made(*arguments, used_rows=used_rows, **options)

    made = vars(vllm_weights)["Load"]
    monkeypatch.setattr(vllm_weights, "Load", load)
    loader, model = Loader(), Model()
    names = [name for name, _ in loader.get_all_weights(None, model)]
    assert names == [f"{letter}{number}" for number in range(2) for letter in "abc"]
    used = [asked[0](f"{name}.weight", (4, 4)) for name in ("a0", "a1", "b0")]
    assert used == [(0, 0), None, None]
    list(Loader()._get_weights_iterator(SimpleNamespace(prefix="")))
    list(utils.safetensors_weights_iterator(shards, False, "prefetch"))
    assert asked[1:] == [None, None]
    vllm.unregister()
    assert own_methods == (Loader.get_all_weights, Loader._get_weights_iterator)


def test_the_prefetch_alone_gives_a_handle_and_keeps_vllms_errors(
    utils: ModuleType, shards: list[str], tmp_path: Path
) -> None:
    vllm.register()
    handle = utils._prefetch_all_checkpoints(shards, num_prefetch_threads=1)
    handle.wait(30)
    assert handle.report().complete
    assert handle.report().threads == 1
    with pytest.raises(ValueError, match="too few"):
        utils._prefetch_all_checkpoints(shards, num_prefetch_threads=0)
    assert utils._prefetch_all_checkpoints([str(tmp_path / "missing")]) is None


def test_what_is_not_as_expected_is_left_alone(
    utils: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(utils, "enable_tqdm", lambda: True)
    with caplog.at_level(logging.WARNING, "shardahead"):
        vllm.register()
        vllm.register()
    assert len(own(utils)) == 5
    (record,) = caplog.records
    assert "enable_tqdm" in record.getMessage()
    assert "0.32.0 and 0.33.0" in record.getMessage()


def test_a_process_that_does_not_load_imports_no_loaders(tmp_path: Path) -> None:
    folder = tmp_path / "vllm" / "model_executor" / "model_loader"
    folder.mkdir(parents=True)
    for place in (folder.parents[1], folder.parent):
        (place / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("raise ZeroDivisionError('imported')")
    script = (
        "import sys, vllm; from shardahead.integrations import vllm as plugin; plugin.register();"
        "plugin.register(); assert 'torch' not in sys.modules;"
        "assert not any(name.startswith('vllm.') for name in sys.modules);"
        "import vllm.model_executor.model_loader"
    )
    paths = [str(tmp_path), *filter(None, sys.path)]
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert found.stderr.splitlines()[-1] == "ZeroDivisionError: imported"
    assert "AssertionError" not in found.stderr
