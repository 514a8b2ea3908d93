"""Lets SGLang be imported beside a build of torch for CPUs. Call before its first import.

SGLang imports torchvision, whose compiled operators do not load on such a build.
"""

from __future__ import annotations

from typing import Any

import torch


def pass_over_torchvision() -> None:
    register = torch.library.register_fake

    def wrapped(op: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(op, str) and op.startswith("torchvision::"):
            return lambda function: function
        return register(op, *arguments, **options)

    torch.library.register_fake = wrapped
