"""A profile that is wrong is given up while it can still be in the way: before the consumer has let
go of the tensor that shows it, and also where most of it is right. See also test_learned.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import KIB, MIB, MakeMount, run_python
from learned_support import rewrite, write_checkpoint

from shardahead.prefetch.byte_ranges import Ranges
from shardahead.prefetch.profile_trust import (
    DOUBTED_BYTES,
    PROVEN_BYTES,
    SAMPLED_DOUBTED_BYTES,
    ProfileTrust,
)

pytest.importorskip("torch")

LOAD = """
import json, sys, time
import shardahead
weights = shardahead.safetensors_weights_iterator(sys.argv[1], learn=sys.argv[2], learn_key="one")
report = weights.prefetch.report

def until_given_up():
    deadline = time.monotonic() + 20
    while not report().cancelled and time.monotonic() < deadline:
        time.sleep(0.01)
    return report().cancelled

{consume}
print(json.dumps([found, report().learned, report().cancelled]))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("wrong") / "m")


def test_it_is_given_up_while_the_first_tensor_is_held(
    checkpoint: Path, profiles: Path, make_mount: MakeMount
) -> None:
    # Of each shard its second tensor, and nothing of the first.
    rewrite(checkpoint, profiles, lambda *_: ((32 * MIB + 256 * KIB, 31 * MIB),))
    consume = """
name, tensor = next(weights)
rows = tensor[: tensor.shape[0] // 8].sum().item()
found = until_given_up()
for name, tensor in weights:
    pass
"""
    mount = make_mount(checkpoint, rate_mb_per_s=20)
    found = run_python(LOAD.format(consume=consume), mount.mountpoint, profiles)
    assert found == [True, "wrong", True]


def test_it_is_given_up_where_the_smaller_part_is_wrong(
    checkpoint: Path, profiles: Path, make_mount: MakeMount
) -> None:
    # Of the first shard all but the end, of the other all.
    rewrite(checkpoint, profiles, lambda i, size: ((0, size if i else 60 * MIB),))
    consume = """
for number in range(2):
    name, tensor = next(weights)
    if number == 0:
        tensor.sum()
    else:  # the end, and not what comes before it
        tensor[-1].sum()
    del tensor
next(weights)
found = until_given_up()
"""
    mount = make_mount(checkpoint, rate_mb_per_s=20)
    found = run_python(LOAD.format(consume=consume), mount.mountpoint, profiles)
    assert found == [True, "wrong", True]


def test_one_that_lacks_something_and_wants_nothing_for_nothing_is_kept(
    checkpoint: Path, profiles: Path, make_mount: MakeMount
) -> None:
    rewrite(checkpoint, profiles, lambda *_: ((0, 60 * MIB),))
    consume = """
for name, tensor in weights:
    tensor.sum()
    del tensor
found = None
"""
    mount = make_mount(checkpoint)
    found = run_python(LOAD.format(consume=consume), mount.mountpoint, profiles)
    assert found == [None, "wrong", False]


def test_others_of_the_node_wait_no_longer_for_what_theirs_say(
    checkpoint: Path, profiles: Path, make_mount: MakeMount
) -> None:
    """One has what shows it; the other, whose profile wants all, still waits for its first tensor.
    It would be 32 s without the first.
    """
    rewrite(checkpoint, profiles, lambda *_: ((32 * MIB + 256 * KIB, 31 * MIB),))
    whole = profiles.parent / "whole"
    whole.mkdir()
    rewrite(checkpoint, whole, lambda _, size: ((0, size),))
    consume = """
import threading
other = shardahead.safetensors_weights_iterator(sys.argv[1], learn=sys.argv[3], learn_key="one")
held = []
waiting = threading.Thread(target=lambda: held.append(next(other)))
waiting.start()
name, tensor = next(weights)
found = [len(held)]
tensor[: tensor.shape[0] // 8].sum().item()
found += [until_given_up()]
waiting.join()
read_bytes = other.prefetch.report().node_read_bytes
found += [len(held), other.prefetch.report().cancelled, read_bytes < 24 << 20]
weights.close()
other.close()
"""
    mount = make_mount(checkpoint, rate_mb_per_s=1)
    found = run_python(LOAD.format(consume=consume), mount.mountpoint, profiles, whole)
    assert found == [[0, True, 1, True, True], "wrong", True]


def test_one_of_which_something_is_known_is_not_given_up_with_others() -> None:
    trust = ProfileTrust([((0, 64 * MIB),)])
    assert trust.is_open(0, 0)
    assert trust.is_open(MIB - 1, 0)
    assert not trust.is_open(MIB, 0)
    assert trust.is_open(32 * MIB, 1)
    assert not trust.is_open(PROVEN_BYTES, 1)


def none_touched(_: int) -> Ranges:
    return ()


def all_touched(_: int) -> Ranges:
    return ((0, 64 * MIB),)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_little_is_no_reason(sampled: bool) -> None:
    trust = ProfileTrust([((0, 64 * MIB),)])
    least_bytes = SAMPLED_DOUBTED_BYTES if sampled else DOUBTED_BYTES
    trust.passed(0, 0, 64 * MIB)
    assert not trust.is_lost(least_bytes, least_bytes - 1, none_touched, sampled=sampled)
    assert trust.is_lost(2 * least_bytes, least_bytes, none_touched, sampled=sampled)


def test_what_is_lacking_counts_beside_what_is_passed_untouched() -> None:
    wanted: list[Ranges] = [((0, 64 * MIB),)]
    for touched, lost in ((all_touched, False), (none_touched, True)):
        trust = ProfileTrust(wanted)
        assert not trust.is_lost(32 * MIB, MIB, touched, sampled=False), "nothing was passed"
        trust.passed(0, 0, 32 * MIB)
        assert trust.is_lost(32 * MIB, 2 * MIB, touched, sampled=False) is lost
        # Of one that is sampled it is not known.
        trust = ProfileTrust(wanted)
        trust.passed(0, 0, 32 * MIB)
        assert not trust.is_lost(32 * MIB, 2 * MIB, touched, sampled=True)


def test_what_is_passed_later_is_judged_as_well() -> None:
    trust = ProfileTrust([((0, 64 * MIB),)])
    assert not trust.is_lost(32 * MIB, 2 * MIB, none_touched, sampled=False)
    trust.passed(0, 0, 32 * MIB)
    assert trust.is_lost(32 * MIB, 2 * MIB, none_touched, sampled=False)


def test_what_was_passed_counts_from_the_beginning() -> None:
    trust = ProfileTrust([((0, 64 * MIB),)])
    trust.passed(0, 0, 32 * MIB)
    half: Ranges = ((0, 32 * MIB),)
    assert not trust.is_lost(32 * MIB, MIB, lambda _: half, sampled=False)
    trust.passed(0, 32 * MIB, 32 * MIB)
    assert trust.is_lost(32 * MIB, 2 * MIB, lambda _: half, sampled=False)
