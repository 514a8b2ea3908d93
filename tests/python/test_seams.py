"""Holding on to an engine: what is looked at, and that one warning says what is missing."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest

from shardahead import __version__
from shardahead.integrations import seams
from shardahead.integrations.seams import Seam, decline, missing


class Loader:
    def load(self, files: list[str], *, threads: int = 4) -> None: ...


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("an_engine")
    module.Loader = Loader  # type: ignore[attr-defined]
    module.BAR = "%"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "an_engine", module)
    return module


@pytest.fixture(autouse=True)
def _nothing_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seams, "_declined", set())


@pytest.mark.usefixtures("engine")
def test_what_is_as_expected_is_not_missing() -> None:
    expected = [
        Seam("an_engine", "Loader.load", ("self", "files", "threads")),
        Seam("an_engine", "Loader.load", ("files",)),
        Seam("an_engine", "Loader"),
        Seam("an_engine", "BAR"),
    ]
    assert missing(expected) is None
    assert expected[0].find() is Loader.load


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("seam", "said"),
    [
        (Seam("no_such_engine", "load"), "no_such_engine.load: No module named"),
        (Seam("an_engine", "Loader.save"), "an_engine.Loader.save: "),
        (Seam("an_engine", "Loader.load", ("self", "files", "block")), "has no parameter block"),
        (Seam("an_engine", "BAR", ()), "an_engine.BAR: "),
    ],
)
def test_the_first_thing_that_is_not_as_expected_is_told(seam: Seam, said: str) -> None:
    found = missing([Seam("an_engine", "BAR"), seam, Seam("no_such_engine", "another")])
    assert found is not None
    assert said in found
    assert "another" not in found


def test_an_engine_that_cannot_be_imported_is_missing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "a_broken_engine.py").write_text("raise RuntimeError('no GPU here')")
    monkeypatch.syspath_prepend(folder)
    found = missing([Seam("a_broken_engine", "load")])
    assert found == "a_broken_engine.load: no GPU here"


def test_declining_warns_once_and_names_both_versions(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        decline("pytest", "pytest.load: gone", tested="1.0")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "shardahead"
    text = record.getMessage()
    for part in (
        __version__,
        f"pytest {pytest.__version__}",
        "tested with 1.0",
        "pytest.load: gone",
    ):
        assert part in text


def test_the_module_says_which_version_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = ModuleType("an_engine")
    vars(engine)["__version__"] = "3.1+cpu"
    monkeypatch.setitem(sys.modules, "an_engine", engine)
    decline("an_engine", "load: gone", tested="1.0")
    assert "leaves an_engine 3.1+cpu alone" in caplog.text


def test_an_engine_without_a_version_is_declined_as_well(caplog: pytest.LogCaptureFixture) -> None:
    decline("no-such-engine", "load: gone", tested="1.0")
    assert "no-such-engine of an unknown version" in caplog.text
