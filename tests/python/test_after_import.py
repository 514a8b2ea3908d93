"""Waiting for an import: of real modules in a folder of the test's own."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import HANG_SECONDS

from shardahead.integrations.after_import import AfterImport

PACKAGE = "an_engine_to_wait_for"
MODULE = f"{PACKAGE}.loaders"


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The source of the module; the package is imported, the module is not."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "loaders.py").write_text("def load():\n    return 'own'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    importlib.import_module(PACKAGE)
    yield folder / "loaders.py"
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


class Calls:
    """What is to be done: it sees the module as it is then."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def __call__(self) -> None:
        self.seen.append(callable(getattr(sys.modules.get(MODULE), "load", None)))


def test_it_waits_until_someone_else_imports() -> None:
    calls = Calls()
    AfterImport(MODULE, calls).begin()
    assert MODULE not in sys.modules
    assert calls.seen == []
    importlib.import_module(MODULE)
    assert calls.seen == [True]
    importlib.reload(sys.modules[MODULE])
    assert calls.seen == [True]


def test_who_imports_gets_what_was_put_there() -> None:
    def replace() -> None:
        vars(sys.modules[MODULE])["load"] = lambda: "ours"

    AfterImport(MODULE, replace).begin()
    scope: dict[str, Callable[[], str]] = {}
    exec(f"from {MODULE} import load", scope)
    assert scope["load"]() == "ours"


def test_what_is_imported_already_is_not_waited_for() -> None:
    importlib.import_module(MODULE)
    before = list(sys.meta_path)
    calls = Calls()
    AfterImport(MODULE, calls).begin()
    assert calls.seen == [True]
    assert sys.meta_path == before


def test_the_module_is_as_it_would_be_without() -> None:
    AfterImport(MODULE, Calls()).begin()
    module = importlib.import_module(MODULE)
    spec = PathFinder.find_spec(MODULE, sys.modules[PACKAGE].__path__)
    assert spec is not None
    assert module.__spec__ is not None
    assert type(module.__loader__) is type(spec.loader)
    assert "exec_module" not in vars(module.__loader__)
    assert (module.__spec__.origin, module.__file__) == (spec.origin, spec.origin)


def test_a_cancelled_one_does_nothing() -> None:
    before = list(sys.meta_path)
    calls = Calls()
    waiting = AfterImport(MODULE, calls)
    waiting.begin()
    waiting.begin()
    assert len(sys.meta_path) == len(before) + 1
    assert waiting.cancel()
    assert not waiting.cancel()
    assert sys.meta_path == before
    importlib.import_module(MODULE)
    assert calls.seen == []
    waiting.begin()
    assert calls.seen == [True]


def test_cancelled_while_the_import_is_under_way(engine: Path) -> None:
    calls = Calls()
    waiting = AfterImport(MODULE, calls)
    engine.write_text("import sys\nsys.cancel_it()\n")
    vars(sys)["cancel_it"] = waiting.cancel
    try:
        waiting.begin()
        importlib.import_module(MODULE)
    finally:
        del vars(sys)["cancel_it"]
    assert calls.seen == []


def test_an_import_that_fails_is_tried_again(engine: Path) -> None:
    calls = Calls()
    AfterImport(MODULE, calls).begin()
    source = engine.read_text()
    engine.write_text("raise ZeroDivisionError")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(MODULE)
    assert calls.seen == []
    engine.write_text(f"{source}\nMORE = True\n")  # another size: what was compiled is stale
    importlib.import_module(MODULE)
    assert calls.seen == [True]


def test_to_be_looked_for_is_not_to_be_imported() -> None:
    calls = Calls()
    AfterImport(MODULE, calls).begin()
    assert find_spec(MODULE) is not None
    assert calls.seen == []
    importlib.import_module(MODULE)
    assert calls.seen == [True]


@pytest.mark.parametrize(
    "name", [f"{PACKAGE}.missing", f"{PACKAGE}.loaders.more", "no_engine_at_all.loaders"]
)
def test_what_is_not_there_is_not_waited_for(name: str) -> None:
    before = list(sys.meta_path)
    with pytest.raises(ImportError, match="No module named"):
        AfterImport(name, Calls()).begin()
    assert sys.meta_path == before
    assert MODULE not in sys.modules


def test_of_threads_that_import_at_once_one_calls() -> None:
    calls = Calls()
    AfterImport(MODULE, calls).begin()
    start = threading.Barrier(8)

    def load() -> None:
        start.wait(HANG_SECONDS)
        assert importlib.import_module(MODULE).load

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert calls.seen == [True]
