"""Stands in for SGLang's kernels, whose build for processors is in no registry: every name can be
imported, and none be called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

__version__ = "0.0.0"
globals()["__path__"] = []  # its parts are to be asked for here, too


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} is not here")

    return absent
