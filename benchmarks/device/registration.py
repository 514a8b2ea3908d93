"""Page-locks memory that is there already, by cudaHostRegister, and undoes it. Needs a CUDA device.

Not for several threads: an error stays with the thread until some call fetches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

DEFAULT_FLAGS = 0
READ_ONLY_FLAG = 8  # cudaHostRegisterReadOnly


class RegistrationError(RuntimeError):
    """cudaHostRegister refused; the text is CUDA's."""


@contextmanager
def registered(address: int, length: int, flags: int = DEFAULT_FLAGS) -> Iterator[None]:
    """Within, the device may copy from there by itself. Raises RegistrationError."""
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    code = runtime.cudaHostRegister(address, length, flags)
    if int(code):
        _forget_error()
        raise RegistrationError(f"{runtime.cudaGetErrorString(code)} ({int(code)})")
    try:
        yield
    finally:
        torch.cuda.synchronize()
        runtime.cudaHostUnregister(address)


def _forget_error() -> None:
    """The runtime hands the last error to the next launch of a kernel, whatever it is of."""
    try:
        torch.zeros(1, device="cuda").add_(1)
    except RuntimeError:
        return
