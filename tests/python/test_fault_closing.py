"""A server that does not answer to close(): whatever is dropped then, no one waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MakeMount
from fault_support import ITERATORS, LOADS, write_checkpoint
from nursery import Nursery

#: Another thread of Python, which stands still while the GIL is held.
TICKING = """
import gc, threading
from shardahead.prefetch.consumer import PrefetchConsumer
path = sys.argv[1]
ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.001)

threading.Thread(target=tick, daemon=True).start()

def close_never():
    "From now on: no answer for an hour."
    with open(path + "/.slowfs/control", "w") as control:
        control.write("close-ms 3600000\\n")

def others_go_on():
    before = ticks
    while ticks < before + 3:
        time.sleep(0.001)
"""
DROPS = {
    "a handle that is done": """
handle = shardahead.prefetch_files(path)
handle.wait(60)
close_never()
del handle
""",
    "a handle of a consumer": """
handle = shardahead.prefetch_files(path, consumer=True)
handle.wait(60)
mapping = PrefetchConsumer(handle).map(1)
held = [mapping.hold(0, 4096), mapping.hold(4096, 4096)]
close_never()
del handle
gc.collect()
del mapping
del held
""",
    "with": """
with shardahead.prefetch_files(path) as handle:
    handle.wait(60)
    close_never()
del handle
""",
    "prefetching": """
with shardahead.prefetching(path) as handle:
    handle.wait(60)
    close_never()
del handle
""",
    **{
        f"{make} {options}": f"""
weights = shardahead.{make}(path, **json.loads('{options}'))
kept = [next(weights) for _ in range(6)]
close_never()
weights.close()
del weights
gc.collect()
del kept
"""
        for make, options in LOADS
    },
    "an error": f"""
def load():
    for name, tensor in shardahead.{ITERATORS[0]}(path):
        if name == "1.1":
            close_never()
            raise ZeroDivisionError
try:
    load()
except ZeroDivisionError:
    pass
""",
}


@pytest.mark.parametrize("drop", DROPS)
def test_what_is_dropped_waits_for_no_close_and_stops_no_thread(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, drop: str
) -> None:
    mount = make_mount(write_checkpoint(tmp_path / "source", tensor_bytes=64 * 1024), close_ms=0.1)
    end = 'others_go_on()\nprint("dropped", flush=True)\ntime.sleep(3600)'
    nursery.start(TICKING + DROPS[drop] + end, mount.mountpoint).wait_until_says("dropped")
