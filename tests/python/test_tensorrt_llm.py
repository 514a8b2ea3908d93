"""The weight loader for TensorRT-LLM, against a stand-in of the interface that its documents and
sources name. Nothing here was run in the real engine.
"""

from __future__ import annotations

import logging
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import is_resident, messages

from shardahead.integrations import seams
from shardahead.integrations.tensorrt_llm import weight_loader

_MODULES = ["tensorrt_llm", "_torch", "models", "checkpoints", "hf", "weight_loader"]


class HfWeightLoader:
    """What is relied upon: load_weights() calls prefetch_files() with the paths of one folder."""

    def __init__(self, checkpoint_io_policy: str = "native") -> None:
        self.policy = checkpoint_io_policy
        self.own_prefetches = 0

    def load_weights(self, checkpoint_dir: str) -> list[bool]:
        paths = sorted(str(path) for path in Path(checkpoint_dir).glob("*.safetensors"))
        self.prefetch_files(paths)
        return [is_resident(path) for path in paths]

    def prefetch_files(self, file_names: list[str]) -> None:
        self.own_prefetches += bool(file_names)


class Communicator:
    def Get_rank(self) -> int:  # noqa: N802 - mpi4py's name
        return 1

    def Get_size(self) -> int:  # noqa: N802
        return 3


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], None]:
    def install(loader: type) -> None:
        for i in range(len(_MODULES)):
            name = ".".join(_MODULES[: i + 1])
            module = types.ModuleType(name)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, name, module)
        sys.modules[".".join(_MODULES)].HfWeightLoader = loader  # type: ignore[attr-defined]

    install(HfWeightLoader)
    monkeypatch.setattr(seams, "_declined", set())
    return install


@pytest.mark.usefixtures("engine")
def test_all_is_resident_before_the_engine_loads(files: list[Path]) -> None:
    loader = weight_loader()
    assert isinstance(loader, HfWeightLoader)
    assert loader.load_weights(str(files[0].parent)) == [True] * len(files)
    assert loader.own_prefetches == 0


@pytest.mark.usefixtures("engine")
def test_local_ranks_together_bring_in_all_of_it(files: list[Path]) -> None:
    names = [str(path) for path in files]
    loader = weight_loader(partition="block", block_size=2**20)
    for rank in range(3):
        assert not all(is_resident(path) for path in files)
        loader.prefetch_files(names, local_rank=rank, local_size=3)
    assert all(is_resident(path) for path in files)


@pytest.mark.usefixtures("engine")
def test_a_communicator_of_the_local_ranks_says_which_they_are(files: list[Path]) -> None:
    loader = weight_loader(partition="file")
    loader.prefetch_files([str(path) for path in files], Communicator())
    assert [is_resident(path) for path in files] == [
        i % 3 == 1 or not path.stat().st_size for i, path in enumerate(files)
    ]


@pytest.mark.usefixtures("engine")
def test_options_of_both_survive_pickling(files: list[Path]) -> None:
    loader = weight_loader(threads=2, checkpoint_io_policy="other")
    copy: Any = pickle.loads(pickle.dumps(loader))
    assert (type(copy), copy.policy) == (type(loader), "other")
    copy.prefetch_files([str(path) for path in files])
    assert all(is_resident(path) for path in files)


@pytest.mark.usefixtures("engine")
def test_what_cannot_be_opened_is_left_to_the_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weight_loader().prefetch_files([str(tmp_path / "missing.safetensors")])
    assert "missing.safetensors" in messages(caplog)[0]


@pytest.mark.usefixtures("engine")
def test_bad_options_raise_before_the_engine_loads() -> None:
    with pytest.raises(ValueError, match="threads must be between"):
        weight_loader(threads=0)
    with pytest.raises(TypeError, match="no_such"):
        weight_loader(no_such=1)


@pytest.mark.usefixtures("engine")
def test_switched_off_it_is_the_engines_own(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    loader = weight_loader(checkpoint_io_policy="other")
    assert type(loader) is HfWeightLoader
    loader.load_weights(str(files[0].parent))
    assert (loader.policy, loader.own_prefetches) == ("other", 1)


def test_an_engine_of_another_shape_is_left_alone_with_one_warning(
    engine: Callable[[type], None], caplog: pytest.LogCaptureFixture
) -> None:
    class Changed(HfWeightLoader):
        def prefetch_files(self, paths: list[str]) -> None:
            pass

    engine(Changed)
    with caplog.at_level(logging.WARNING, "shardahead"):
        assert type(weight_loader()) is Changed
        assert type(weight_loader()) is Changed
    (warning,) = messages(caplog)
    assert "tensorrt_llm" in warning
    assert "has no parameter file_names" in warning


def test_without_the_engine_it_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="tensorrt_llm"):
        weight_loader()
