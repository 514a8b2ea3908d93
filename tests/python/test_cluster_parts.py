"""The parts of an exchange by themselves: who reads what, what is said, when one stops waiting."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardahead.cluster.assignment import Assignment
from shardahead.cluster.exchange import Job
from shardahead.cluster.lateness import ABSENT_SECONDS, SILENT_SECONDS, OwnTime, Silence
from shardahead.cluster.rendezvous import Address, parse_address
from shardahead.cluster.secret import secret_in
from shardahead.cluster.wire import (
    BLOCK,
    Header,
    Hello,
    WireError,
    bits_of,
    has_bit,
    pack_header,
    proof,
    proves,
    session_key,
    unpack_header,
    unpack_hello,
)

ONE = Hello(b"a" * 32, 0, 2, "v" * 64)
OTHER = Hello(b"b" * 32, 1, 2, "v" * 64)


# ---- who reads what ----


@given(st.integers(0, 300), st.integers(1, 64), st.randoms(use_true_random=False))
def test_each_block_is_of_one_node_that_is_left(
    blocks: int, nodes: int, drawn: random.Random
) -> None:
    here, there = Assignment(blocks, nodes), Assignment(blocks, nodes)
    for node in drawn.sample(range(nodes), drawn.randrange(nodes)):
        before = [here.owner(block) for block in range(blocks)]
        assert here.lose(node)
        assert not here.lose(node)
        assert there.lose(node)
        left = set(here.left())
        owners = [here.owner(block) for block in range(blocks)]
        assert set(owners) <= left
        assert owners == [there.owner(block) for block in range(blocks)]
        # Nothing changes hands but what the lost node had; that is dealt to all alike.
        moved = [new for old, new in zip(before, owners, strict=True) if old == node]
        kept = [(o, n) for o, n in zip(before, owners, strict=True) if o != node]
        assert all(old == new for old, new in kept)
        shares = [moved.count(each) for each in left]
        assert max(shares) <= 3 * len(moved) / len(left) + 9
    for node in range(nodes):
        assert list(here.owned(node)) == [b for b in range(blocks) if here.owner(b) == node]


def test_what_is_dealt_to_a_node_is_what_it_has_of_nodes_that_are_gone() -> None:
    assignment = Assignment(100, 4)
    assert assignment.dealt_to(1, iter(range(100))) == []
    assignment.lose(3)
    assignment.lose(0)
    for node in (1, 2):
        dealt = assignment.dealt_to(node, iter(range(100)))
        assert sorted([*dealt, *assignment.was_of(node)]) == list(assignment.owned(node))
        assert 10 < len(dealt) < 40


def test_the_last_node_is_never_lost() -> None:
    assignment = Assignment(10, 2)
    assert assignment.lose(0)
    assert not assignment.lose(1)
    assert list(assignment.owned(1)) == list(range(10))


@pytest.mark.parametrize(("nodes", "seeds"), [(2, 1000), (8, 10_000), (64, 300), (300, 30)])
def test_a_job_in_which_nodes_come_late_and_die_reads_everything(nodes: int, seeds: int) -> None:
    """On a clock of blocks: each step every living node reads one of its blocks, and what is read
    reaches all that live. Who is lost is known to all some steps later, in one order.
    """
    for seed in range(seeds):
        drawn = random.Random(seed)
        blocks = drawn.randrange(1, 5 * nodes)
        assignment = Assignment(blocks, nodes)
        immortal = drawn.randrange(nodes)
        dies = {n: drawn.randrange(12) for n in range(nodes) if drawn.random() < 0.3}
        dies.pop(immortal, None)
        comes = {n: drawn.randrange(6) for n in range(nodes) if drawn.random() < 0.3}
        sent: set[int] = set()  # with all that live
        read = 0
        for step in range(blocks + 30):
            for node, at in dies.items():
                if step == at + 3:
                    assignment.lose(node)
            owned: dict[int, list[int]] = {}
            for block in set(range(blocks)) - sent:
                owned.setdefault(assignment.owner(block), []).append(block)
            for node, mine in owned.items():
                if comes.get(node, 0) <= step < dies.get(node, 10**9):
                    read += 1
                    if dies.get(node) != step + 1:  # else it dies with what it has read
                        sent.add(min(mine))
            if len(sent) == blocks:
                break
        assert len(sent) == blocks, seed
        assert read <= blocks + len(dies), seed


# ---- what is said ----


def test_both_sides_make_the_same_of_the_secret() -> None:
    assert proves(proof(b"secret", ONE, OTHER), proof(b"secret", ONE, OTHER))
    assert session_key(b"secret", ONE, OTHER) == session_key(b"secret", OTHER, ONE)
    assert not proves(proof(b"secret", ONE, OTHER), proof(b"other!", ONE, OTHER))
    assert not proves(proof(b"secret", ONE, OTHER), proof(b"secret", OTHER, ONE))  # no mirror
    assert unpack_hello(ONE.packed()) == ONE


@pytest.mark.parametrize("at", range(0, 70, 3))
def test_a_message_that_was_changed_is_none(at: int) -> None:
    header = Header(BLOCK, 7, 16 << 20, 2**64 - 1)
    message = pack_header(b"key", 3, 5, header)
    assert unpack_header(b"key", 3, 5, message) == header
    changed = bytearray(message)
    changed[at % len(message)] ^= 1
    for key, sender, turn, said in (
        (b"key", 3, 5, bytes(changed)),
        (b"yek", 3, 5, message),
        (b"key", 4, 5, message),
        (b"key", 3, 6, message),  # said before
        (b"key", 3, 5, message[:-1]),
    ):
        with pytest.raises(WireError):
            unpack_header(key, sender, turn, said)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(said: bytes) -> None:
    with pytest.raises(WireError):
        unpack_header(b"key", 0, 0, said)
    with pytest.raises(WireError):
        unpack_hello(said)


@given(st.sets(st.integers(0, 99)), st.integers(100, 110))
def test_bits_are_of_the_blocks(blocks: set[int], count: int) -> None:
    bits = bits_of(blocks, count)
    assert {block for block in range(count) if has_bit(bits, block)} == blocks


# ---- when one stops waiting ----


def test_who_was_heard_is_lost_when_silent_and_who_never_came_when_there_is_nothing_to_do() -> None:
    silence = Silence()
    assert not silence.is_absent(1, 1000)  # it may come yet: there is enough to read
    silence.set_idle(1000, idle=True)
    assert not silence.is_absent(1, 1000 + ABSENT_SECONDS)
    assert silence.is_absent(1, 1000.1 + ABSENT_SECONDS)
    assert not silence.is_silent(1, 9000)
    for at in (1999.6, 1999.8, 2000.0):
        silence.hear(2, at)
    assert not silence.is_silent(2, 2000 + SILENT_SECONDS)
    assert silence.is_silent(2, 2000.1 + SILENT_SECONDS)
    silence.hear(2, 2002)  # it was late: three times that is waited for now
    assert not silence.is_silent(2, 2007)
    assert silence.is_silent(2, 2009)
    assert not silence.is_absent(2, 9000)
    silence.listen(2, listens=False)
    assert not silence.is_silent(2, 9000)


def test_who_sends_nothing_is_late_when_nobody_sends_anything() -> None:
    silence = Silence()
    silence.has_read(1.0)
    assert not silence.is_late(1, 1000)  # this node still reads
    silence.set_idle(10.0, idle=True)
    silence.feed(2, 12.0)
    assert not silence.is_late(1, 12 + ABSENT_SECONDS)
    assert silence.is_late(1, 12.1 + ABSENT_SECONDS)
    silence.set_idle(15.0, idle=False)
    silence.set_idle(15.0, idle=True)
    silence.has_read(17.0)  # the storage takes two seconds for a block
    assert not silence.is_late(1, 20)
    assert silence.is_late(1, 21.1)
    silence.listen(1, listens=False)
    assert not silence.is_late(1, 9000)


def test_a_process_that_did_not_run_has_not_waited() -> None:
    time = OwnTime(100.0)
    assert time.advance(100.1) == pytest.approx(0.1)
    assert time.advance(160.1) == pytest.approx(0.3)  # it was stopped
    assert time.advance(160.0) == pytest.approx(0.3)  # no clock of ours goes back; none is harmed
    # It gets a processor once a second: what seems to it a long silence is one of its own.
    silence = Silence()
    silence.hear(1, time.seconds)
    for step in range(7):
        assert not silence.is_silent(1, time.advance(161.0 + step)), step
    for step in range(20):
        time.advance(168.0 + step / 10)
    assert silence.is_silent(1, time.seconds)


# ---- what is typed ----


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("node0:29400", Address("node0", 29400)),
        ("10.0.0.1:1", Address("10.0.0.1", 1)),
        ("[fe80::1]:65535", Address("fe80::1", 65535)),
    ],
)
def test_an_address(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "node0", ":1", "node0:", "node0:x", "a:0", "a:65536", "fe80::1:5"]
)
def test_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        Job(text, 2)


@pytest.mark.parametrize(("nodes", "node"), [(0, None), (65, None), (2, 2), (2, -1)])
def test_no_job(nodes: int, node: int | None) -> None:
    with pytest.raises(ValueError, match="must be between"):
        Job("a:1", nodes, node)


def test_a_secret_is_text_or_in_a_file_of_ones_own(tmp_path: Path) -> None:
    assert secret_in({}) is None
    assert secret_in({"SHARDAHEAD_SECRET": "long enough"}) == b"long enough"
    with pytest.raises(ValueError, match="8 to 4096 bytes, not 5"):
        secret_in({"SHARDAHEAD_SECRET": "short"})
    path = tmp_path / "secret"
    path.write_text("of a file\n")
    path.chmod(0o600)
    assert secret_in({"SHARDAHEAD_SECRET": f"@{path}"}) == b"of a file"
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        secret_in({"SHARDAHEAD_SECRET": f"@{path}"})
    with pytest.raises(FileNotFoundError):
        secret_in({"SHARDAHEAD_SECRET": "@/nowhere"})
