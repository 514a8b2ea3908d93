"""Everything public tells its types at run time: typing.get_type_hints works on all of it, with
torch and where importing torch fails. Importing the package imports no torch.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, clean_environment, finish, start_python

import shardahead

WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""
LOOK = """
import json, sys, os
sys.path.insert(0, os.environ["TESTS"])
import test_type_hints
print(json.dumps([test_type_hints.without_hints(), "torch" in sys.modules]))
"""
#: They tell nothing of themselves: aliases of types, and a string.
ALIASES = {"Files", "Names", "Part", "Slices", "Weight", "__version__"}
SPECIAL = {"__init__", "__enter__", "__exit__", "__iter__", "__next__", "__await__"}


def public_callables() -> Iterator[tuple[str, Any]]:
    """All that is public and has types to tell, members of classes too; properties by getter."""
    for name in shardahead.__all__:
        found = getattr(shardahead, name)
        if name in ALIASES:
            continue
        yield name, found
        if inspect.isclass(found):
            for member, value in vars(found).items():
                if member.startswith("_") and member not in SPECIAL:
                    continue
                if isinstance(value, property):
                    yield f"{name}.{member}", value.fget
                elif isinstance(value, classmethod | staticmethod):
                    yield f"{name}.{member}", value.__func__
                elif inspect.isroutine(value):
                    yield f"{name}.{member}", value


def without_hints() -> list[str]:
    """What does not tell all of its types, and why."""
    wrong = []
    for name, found in public_callables():
        try:
            hints = typing.get_type_hints(found)
        except Exception as error:
            wrong.append(f"{name}: {error!r}")
            continue
        if inspect.isclass(found):
            continue
        parameters = [n for n in inspect.signature(found).parameters if n not in ("self", "cls")]
        wrong += [f"{name}: {n}" for n in (*parameters, "return") if n not in hints]
    return wrong


def test_everything_public_tells_its_types() -> None:
    names = [name for name, _ in public_callables()]
    assert {"prefetch_files", "PrefetchHandle.wait", "Report.complete"} < set(names)
    assert without_hints() == []


@pytest.mark.parametrize("torch", ["with torch", "without torch"])
def test_in_a_process_of_its_own(torch: str) -> None:
    script = (WITHOUT_TORCH if torch == "without torch" else "") + LOOK
    # `make interpreters` has a variable of that name.
    environ = {**clean_environment(), "TESTS": str(Path(__file__).parent)}
    done = finish(start_python(script, env=environ))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], False]


def test_aliases_are_types() -> None:
    assert os.PathLike[str] in typing.get_args(shardahead.Files)
    assert typing.get_args(shardahead.Weight)[0] is str
    hints = typing.get_type_hints(shardahead.safetensors_weights_iterator)
    assert hints["files"] == shardahead.Files
    assert hints["names"] == shardahead.Names | None
    assert hints["options"] == shardahead.Options | None
    hints = typing.get_type_hints(shardahead.WeightsIterator.__next__)
    assert hints["return"] == shardahead.Weight
    hints = typing.get_type_hints(shardahead.PrefetchHandle.progress)
    assert hints["return"] is shardahead.Progress


def test_everything_public_is_told_by_its_docstring() -> None:
    for name, found in public_callables():
        if name.partition(".")[2] not in SPECIAL:
            assert inspect.getdoc(found), name


def test_what_is_public_is_there_in_order() -> None:
    assert shardahead.__all__ == sorted(shardahead.__all__)
    assert {"Files", "Names", "Options", "Progress", "Shard", "Weight"} < set(shardahead.__all__)
    assert sys.modules["shardahead"].__doc__


def test_type_checkers_are_shown_all_of_it() -> None:
    text = (REPOSITORY / "tests" / "typing" / "public_surface.py").read_text()
    assert [name for name in shardahead.__all__ if not re.search(rf"\b{name}\b", text)] == []
