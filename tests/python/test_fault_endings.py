"""Every way out of a load whose storage does not answer, or is slow: cancel(), close(), Ctrl-C,
SIGTERM, exit, an unhandled exception. Each promises 2 s.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import KIB, MIB, MakeMount, eventually
from fault_support import ITERATORS, PROMISED_SECONDS, within, write_checkpoint
from nursery import Nursery

STALLED_SECONDS = 3600.0
SLOW_MB_PER_S = 20  # at which the checkpoint would take 13 s

# Signals that stand for what the program itself may do in the middle.
START = """
path = sys.argv[1]

def leave(*_):
    sys.exit(3)

def fail(*_):
    raise ZeroDivisionError("the program's own")

signal.signal(signal.SIGUSR1, leave)
signal.signal(signal.SIGUSR2, fail)
print("begun", flush=True)
"""
SCENARIOS = {
    "prefetch_files": "shardahead.prefetch_files(path).wait()",
    "prefetch_files of one strategy": 'shardahead.prefetch_files(path, strategy="pread").wait()',
    **{make: f"for _ in shardahead.{make}(path): pass" for make in ITERATORS},
    "names": f"for _ in shardahead.{ITERATORS[0]}(path, names=['0.0', '2.1']): pass",
    "pread": f"for _ in shardahead.{ITERATORS[0]}(path, mode='pread'): pass",
    "static": f"""
os.environ["SHARDAHEAD_PARTITION"] = "block"
for _ in shardahead.{ITERATORS[0]}(path): pass
""",
    "prefetching": """
with shardahead.prefetching(path):
    time.sleep(3600)
""",
    "warm": "sys.exit(shardahead.command.cli.main(['warm', path]))",
}
OF_TORCH = {
    "pt": "for _ in shardahead.pt_weights_iterator(path): pass",
    "pt without a prefetch": "for _ in shardahead.pt_weights_iterator(path, mode='pread'): pass",
}
ENDS = {signal.SIGINT: -signal.SIGINT, signal.SIGTERM: -signal.SIGTERM}
OWN_ENDS = {signal.SIGUSR1: 3, signal.SIGUSR2: 1}


@pytest.fixture
def stalled(tmp_path: Path, make_mount: MakeMount) -> Iterator[Path]:
    """A checkpoint of which nothing after the first shard is answered."""
    mount = make_mount(write_checkpoint(tmp_path / "source"))
    for i in (1, 2):
        mount.stall(f"model-{i}.safetensors", 0, STALLED_SECONDS)
    yield mount.mountpoint
    assert mount.counters().in_flight, "nothing was stalled"


def as_files_of_torch(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    for path in folder.glob("*.safetensors"):
        torch.save(load_file(path), path.with_suffix(".pt"))
        path.unlink()


def end_all(
    nursery: Nursery, script: str, folder: Path, tmp_path: Path, wait_seconds: float = 0.3
) -> None:
    """One process for each end, none of which has anything to do with the others."""
    children = {}
    for number in (*ENDS, *OWN_ENDS):
        board = tmp_path / f"board-{number}"
        board.mkdir()
        env = {"SHARDAHEAD_BOARD_FOLDER": str(board)}
        children[number] = nursery.start(START + script, folder, env=env)
    for child in children.values():
        child.wait_until_says("begun")
    time.sleep(wait_seconds)  # into the middle of it, wherever that is
    assert not any(child.ended for child in children.values())
    for number, child in children.items():
        child.kill(number)
    expected = {**ENDS, **OWN_ENDS}
    if "warm" in script:  # a command, which reports what it did by then
        expected.update({number: 128 + number for number in ENDS})
    statuses = within(PROMISED_SECONDS, [*children.values()])
    assert statuses == [expected[number] for number in children]
    for child in children.values():
        assert "Fatal Python error" not in child.err
        assert "terminate called" not in child.err
    assert "ZeroDivisionError" in children[signal.SIGUSR2].err


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_load_in_the_middle_of_a_stall_ends_at_once(
    nursery: Nursery, stalled: Path, tmp_path: Path, scenario: str
) -> None:
    end_all(nursery, SCENARIOS[scenario], stalled, tmp_path)


@pytest.mark.parametrize("scenario", [*SCENARIOS, *OF_TORCH])
def test_a_load_that_comes_in_slowly_ends_at_once(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, scenario: str
) -> None:
    source = write_checkpoint(tmp_path / "source", shards=8, tensors=4, tensor_bytes=8 * MIB)
    if scenario in OF_TORCH:
        as_files_of_torch(source)
    mount = make_mount(source, rate_mb_per_s=SLOW_MB_PER_S, round_trip_ms=1)
    end_all(nursery, {**SCENARIOS, **OF_TORCH}[scenario], mount.mountpoint, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("wait_seconds", [0.01, 1.0, 4.0, 11.0])
def test_a_load_in_the_middle_of_a_stall_ends_at_once_whenever_that_is(
    nursery: Nursery, stalled: Path, tmp_path: Path, scenario: str, wait_seconds: float
) -> None:
    end_all(nursery, SCENARIOS[scenario], stalled, tmp_path, wait_seconds)


CANCEL = """
import threading
handle = shardahead.prefetch_files(path)
print("begun", flush=True)
time.sleep(0.3)
took = []
for end in (handle.cancel, lambda: handle.stop(timeout=0.1), lambda: repr(handle), handle.report):
    began = time.monotonic()
    end()
    took.append(time.monotonic() - began)

weights = shardahead.ITERATOR(path)
names = [next(weights)[0] for _ in range(4)]
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    next(weights)
except KeyboardInterrupt:
    names.append("interrupted")
began = time.monotonic()
weights.close()
took.append(time.monotonic() - began)

for within in (shardahead.prefetching, shardahead.prefetch_files):
    for error in (None, ZeroDivisionError):
        try:
            with within(path):
                time.sleep(0.1)
                began = time.monotonic()
                if error:
                    raise error
        except ZeroDivisionError:
            pass
        took.append(time.monotonic() - began)
print(json.dumps([names, took]))
"""


@pytest.mark.parametrize("make", ITERATORS)
def test_cancel_stop_and_close_return_at_once(nursery: Nursery, stalled: Path, make: str) -> None:
    child = nursery.start(START + CANCEL.replace("ITERATOR", make), stalled)
    names, took = child.result()
    assert names == ["0.0", "0.1", "0.2", "0.3", "interrupted"]
    assert max(took) <= PROMISED_SECONDS


def test_a_stall_that_ends_costs_nothing_but_time(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(write_checkpoint(tmp_path / "source"))
    mount.stall("model-1.safetensors", MIB + 64 * KIB, 1.0)
    script = f"""
print("begun", flush=True)
found = [name for name, _ in shardahead.{ITERATORS[0]}(sys.argv[1])]
print(json.dumps(len(found)))
"""
    child = nursery.start(script, mount.mountpoint)
    eventually(lambda: mount.counters().in_flight or child.ended, "nothing stalls")
    assert child.result() == 12


# Modules are taken down while other threads still wait: long enough for each of them to look up.
LEFT_BEHIND = """
import threading

class Slow:
    def __del__(self):
        time.sleep(1.0)

slow = Slow()

def load():
    for _ in shardahead.ITERATOR(sys.argv[1], mode="MODE"):
        pass

threading.Thread(target=load, daemon=True).start()
print("begun", flush=True)
time.sleep(0.5)
"""


@pytest.mark.parametrize("mode", ["mmap", "pread"])
@pytest.mark.parametrize("make", ITERATORS)
def test_a_thread_that_waits_when_the_interpreter_ends_does_not_abort_it(
    nursery: Nursery, stalled: Path, make: str, mode: str
) -> None:
    script = LEFT_BEHIND.replace("ITERATOR", make).replace("MODE", mode)
    child = nursery.start(script, stalled)
    assert within(PROMISED_SECONDS + 2, [child]) == [0]
    assert child.err == ""
