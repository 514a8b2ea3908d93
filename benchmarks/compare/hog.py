"""A process that takes and gives back memory at random, beside the ranks of a load.

Started by compare.py in their cgroup: `hog.py MIB SEED`. Ends with its standard input. Anonymous
memory, every page of it written to; the same seed gives the same sizes and pauses.
"""

from __future__ import annotations

import mmap
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgroup import within

MIB = 2**20
SEED = 1
_PAUSE_S = (0.1, 1.0)


@contextmanager
def hog(most_mib: int | None, group: str) -> Iterator[None]:
    """One that takes up to this much at a time; none without a size."""
    if most_mib is None:
        yield
        return
    command = [sys.executable, str(Path(__file__).resolve()), str(most_mib), str(SEED)]
    process = subprocess.Popen(within(group, command), stdin=subprocess.PIPE)
    try:
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.wait() != 0:
            raise RuntimeError(f"the hog ended with status {process.returncode}")


def main() -> int:
    most_mib, seed = int(sys.argv[1]), int(sys.argv[2])
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    choose = random.Random(seed)
    while not ended.wait(choose.uniform(*_PAUSE_S)):
        taken = mmap.mmap(-1, choose.randint(most_mib // 2, most_mib) * MIB)
        for at in range(0, len(taken), mmap.PAGESIZE):
            taken[at] = 1
        ended.wait(choose.uniform(*_PAUSE_S))
        taken.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
