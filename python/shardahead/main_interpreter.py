"""Only the main interpreter of a process can have the C++ core: importing this says so elsewhere.

Imports no other module of this package, so that it comes before all of them.
"""

from __future__ import annotations

import importlib
from typing import Any


def _is_main_interpreter() -> bool:
    """Also where it cannot be told: Python before 3.14 has no public word for it."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13 on, and before
        try:
            module: Any = importlib.import_module(name)
            current, main = module.get_current(), module.get_main()
        except Exception:
            continue
        # From 3.13 on both come with what they are owned by.
        return bool(_id_of(current) == _id_of(main))
    return True


def _id_of(interpreter: Any) -> Any:
    return interpreter[0] if isinstance(interpreter, tuple) else interpreter


if not _is_main_interpreter():
    raise ImportError(
        "shardahead cannot be imported in a subinterpreter: its C++ core belongs to the main "
        "interpreter of a process",
        name="shardahead",
    )
