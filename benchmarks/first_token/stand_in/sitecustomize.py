"""In each process of SGLang that is started here: torchvision may be imported beside a build of
torch for processors, as sglang_on_cpu.py has it, but not before somebody wants it.
"""

from __future__ import annotations

import importlib.abc
import sys
from pathlib import Path
from typing import Any


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, *_: Any) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            sys.path.append(str(Path(__file__).resolve().parents[2] / "compare"))
            from sglang_on_cpu import pass_over_torchvision

            pass_over_torchvision()


sys.meta_path.insert(0, _BeforeTorchvision())
