"""How long whoever consumes a prefetch has waited for its bytes. Any thread; a sum that two threads
add to at once may lose one of the two.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Waited:
    """The report's `waited_seconds`."""

    def __init__(self) -> None:
        self.seconds: float = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started
