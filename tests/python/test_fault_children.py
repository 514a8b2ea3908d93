"""Children that are forked at every stage of a load, and what they then do with what they have of
it: nothing, or drop, close or use it. On a real board, whose slots are the parent's all the time.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_support import CHECKED, ITERATORS, LOADS, write_checkpoint
from nursery import Nursery
from test_fault_processes import HELD_LOCKS

#: A child for each way to end. The parent goes on with the load, whatever they did.
AT_A_STAGE = (
    CHECKED
    + HELD_LOCKS
    + """
import gc, threading, traceback
make, folder, options, stage = sys.argv[1:]
weights = getattr(shardahead, make)(folder, **json.loads(options))
found = []

def take(names):
    for name, tensor in weights:
        assert right(name, tensor), name
        found.append(name)
        if len(found) == names:
            break

def drop():
    global weights
    del weights
    gc.collect()

def use():
    take(12)
    assert len(found) == 12, found

def use_the_handle():
    handle = weights.prefetch
    if handle is not None:
        handle.wait()
        handle.consumed(0, 100)
        consumer = weights._load.prefetch
        consumer.end_consumer()
        consumer.fetch_now(0, 0, 100)
        handle.stop()
        repr(handle), handle.report(), handle.progress(), handle.done, handle.cancelled

def load_anew():
    again = getattr(shardahead, make)(folder, **json.loads(options))
    assert sum(1 for _ in again) == 12

def fork_again():
    child = os.fork()
    if child == 0:
        drop()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    drop()

def fork_in_a_thread():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(code_of(drop)))
    thread.start()
    thread.join()
    assert codes == [0], codes

def code_of(body):
    child = os.fork()
    if child == 0:
        try:
            body()
        except Exception:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)  # the interpreter's own end takes a while: one of these children shows it
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

ends = {
    "exit": sys.exit,
    "leave at once": lambda: os._exit(0),
    "run another program": lambda: os.execv("/bin/true", ["true"]),
    "drop": drop,
    "close": lambda: weights.close(),
    "use": use,
    "use the handle": use_the_handle,
    "load anew": load_anew,
    "fork again": fork_again,
    "fork in a thread": fork_in_a_thread,
}
if stage != "begun":
    take(12 if stage == "at the end" else 3)
if stage == "all brought in" and weights.prefetch is not None:
    weights.prefetch.wait(60)  # the workers are done, and the consumer is not
before = held()
codes = {name: code_of(body) for name, body in ends.items()}
after = held()
take(12)
print(json.dumps([codes, before == after, len(found)]))
"""
)


@pytest.mark.parametrize(
    ("make", "options", "stage"),
    [
        *(
            (*LOADS[0], stage)
            for stage in ("begun", "in the middle", "all brought in", "at the end")
        ),
        (*LOADS[1], "all brought in"),
        (*LOADS[2], "in the middle"),
    ],
)
def test_children_of_any_stage_end_in_order_and_leave_the_parent_alone(
    nursery: Nursery, tmp_path: Path, make: str, options: str, stage: str
) -> None:
    folder = write_checkpoint(tmp_path / "source", tensor_bytes=64 * 1024)
    (tmp_path / "board").mkdir()
    env = {"SHARDAHEAD_BOARD_FOLDER": str(tmp_path / "board")}
    child = nursery.start(AT_A_STAGE, make, folder, options, stage, env=env)
    codes, same_slots, found = child.result()
    assert codes == dict.fromkeys(codes, 0), child.err
    assert same_slots
    assert found == 12


IN_THE_CALLBACK = """
child = -1
def progress(now):
    global child
    if now.name == "0.2":
        child = os.fork()
        if child == 0:
            sys.exit()

found = [name for name, _ in getattr(shardahead, sys.argv[1])(sys.argv[2], progress=progress)]
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(found)]))
"""


@pytest.mark.parametrize("make", ITERATORS)
def test_a_child_of_the_progress_callback_may_exit(
    nursery: Nursery, tmp_path: Path, make: str
) -> None:
    folder = write_checkpoint(tmp_path / "source", tensor_bytes=64 * 1024)
    assert nursery.run(IN_THE_CALLBACK, make, folder) == [0, 12]


#: A lock that another thread held at the fork is held for ever: the child must not ask for it.
LOCKS = """
import threading
parent = os.getpid()

def only_here(method):
    def call(*arguments):
        if os.getpid() != parent:
            os._exit(9)
        return method(*arguments)
    return call

for of_class, name in ((threading.Semaphore, "release"), (threading.Event, "set")):
    setattr(of_class, name, only_here(getattr(of_class, name)))

def code_of(body):
    child = os.fork()
    if child == 0:
        try:
            body()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

weights = shardahead.buffered_multi_thread_safetensors_weights_iterator(sys.argv[1])
next(weights)
codes = [code_of(weights.close), code_of(lambda: [*weights])]
with shardahead.prefetching(sys.argv[1]) as handle:
    child = os.fork()
if child == 0:
    os._exit(0)
codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps([codes, sum(1 for _ in weights)]))
"""


def test_a_child_asks_for_no_lock_that_a_thread_of_its_parent_may_hold(
    nursery: Nursery, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "source", tensor_bytes=64 * 1024)
    assert nursery.run(LOCKS, folder) == [[0, 0, 0], 11]
