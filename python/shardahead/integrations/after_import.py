"""Something to be done once a module has been imported, by whoever imports it.

An engine runs its plugins in all of its processes, and not each of them loads weights: to import
the engine's loaders there would take seconds that nobody asked for. Any thread.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class AfterImport(MetaPathFinder):
    """`then()` is called when `module` has been imported: by `begin`, where it was already, else
    once, in the thread that imports it, before that goes on. An import that fails does not count.

    `then` must not raise: whose import it is knows nothing of it.
    """

    def __init__(self, module: str, then: Callable[[], None]) -> None:
        self._module = module
        self._then = then
        self._lock = threading.Lock()
        self._waits = False

    def begin(self) -> None:
        """Raises ImportError where there is no such module, as far as can be known without an
        import of those above it. May be called again.
        """
        if self._module not in sys.modules:
            if self._waits:
                return
            self._require()
            self._waits = True
            sys.meta_path.insert(0, self)
            if self._module not in sys.modules:
                return
            if not self._is_turn():
                return  # another thread was faster
        self._is_turn()
        self._then()

    def cancel(self) -> bool:
        """Waits no longer; whether it still did."""
        waited = self._is_turn()
        with suppress(ValueError):
            sys.meta_path.remove(self)
        return waited

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of the module, as the finders behind this one say it: its loader calls once more."""
        if name != self._module or not self._waits:
            return None
        spec = self._found_by_others(name, path, target)
        loader: Any = None if spec is None else spec.loader
        if loader is None:
            return spec
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with suppress(AttributeError):
                del loader.exec_module  # the loader stays with the module
            execute(module)
            # It stays in sys.meta_path: up to Python 3.13 a finder that goes makes an import of
            # another thread pass over the next one.
            if self._is_turn():
                self._then()

        # One whose attributes are fixed is none of a file's: then nothing is waited for.
        with suppress(AttributeError, TypeError):
            loader.exec_module = exec_module
        return spec

    def _is_turn(self) -> bool:
        """Once."""
        with self._lock:
            waited, self._waits = self._waits, False
        return waited

    def _found_by_others(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None
            if finder is not self and find is not None:
                spec = find(name, path, target)
            if spec is not None:
                return spec
        return None

    def _require(self) -> None:
        """Looks for the module where those above it are, without importing any."""
        parts = self._module.split(".")
        path: Sequence[str] | None = None
        for number in range(1, len(parts) + 1):
            name = ".".join(parts[:number])
            if name in sys.modules:
                path = getattr(sys.modules[name], "__path__", None)
                continue
            spec = self._found_by_others(name, path, None)
            if spec is None or (number > 1 and path is None):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            path = spec.submodule_search_locations
