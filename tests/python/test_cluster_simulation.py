"""What nodes of a job decide, played with faults of all kinds, up to hundreds of nodes: nothing is
lost, nothing hangs, the storage is read once. A failure names its seed.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from cluster_simulation import STEP_SECONDS, Fate, Simulation, World

SOAK_ROUNDS = int(os.environ.get("SOAK_ROUNDS", "100"))
NEVER = float("inf")
#: What noticing a fault may take: who never comes is waited for 3 s when all else is read, who
#: sends nothing 3 s more, and three times what it was silent before is borne with.
NOTICED_SECONDS = 9.0
GIVE_UP_SECONDS = 1000.0


def any_world(drawn: random.Random, nodes: int) -> World:
    blocks, rate = drawn.randrange(1, 12 * min(nodes, 32)), 20 if nodes < 32 else 200
    seconds = max(1.0, blocks / rate)
    fates = [Fate() for _ in range(nodes)]
    for fate in fates[drawn.randrange(2) :]:
        if drawn.random() > 0.25:
            continue
        at = drawn.random() * seconds * 1.5
        what = drawn.choice(["dies", "stops", "is stopped for good", "is late", "starves", "none"])
        if what == "dies":
            fate.dies = at
        elif what.startswith(("stops", "is stopped")):
            fate.stops = at
            if what == "stops":
                fate.goes_on = at + drawn.choice([0.5, 2, 5, 20])
        elif what == "starves":
            fate.starved_from, fate.starved = at, drawn.choice([5, 20, 60])
        else:
            fate.comes = at if what == "is late" else NEVER
    if not any(fate.is_good for fate in fates):
        fates[drawn.randrange(nodes)] = Fate()
    pairs = [(one, other) for one in range(nodes) for other in range(one)]
    return World(
        blocks,
        fates,
        blocks_per_second=rate,
        shared=drawn.random() < 0.7,
        sent_per_step=drawn.choice([1, 3, 10]),
        roll_steps=drawn.choice([1, 2, 10]),
        wrong=drawn.choice([0.0, 0.0, 0.05]),
        cut={p: drawn.random() * seconds for p in pairs if drawn.random() < 0.3 / nodes},
    )


def play(seed: int, nodes: int) -> None:
    drawn = random.Random(seed)
    world = any_world(drawn, nodes)
    done = Simulation(world, drawn)
    done.run(GIVE_UP_SECONDS)
    told = f"seed {seed}, {nodes} nodes"
    for node in done.nodes:
        if node.fate.ends_whole:
            assert node.whole_at is not None, f"{told}: node {node.number} is not whole"
            assert node.left_at is not None, f"{told}: node {node.number} does not end"
    good = [node for node in done.nodes if node.fate.is_good]
    storage = world.blocks / world.blocks_per_second
    links = world.blocks * STEP_SECONDS * nodes / world.sent_per_step / len(good)
    faultless = len(good) == nodes and not world.cut and not world.wrong
    bound = 1.0 if faultless else storage + NOTICED_SECONDS
    last = max(node.whole_at or NEVER for node in good)
    assert last <= storage + links + bound, f"{told}: {last} s, storage {storage} s"
    # One that is whole before the other has heard of it has left.
    is_long = storage > 1.0 and world.shared and world.sent_per_step == 10
    if is_long and not world.cut and not world.wrong:
        share = -(-world.blocks // nodes)
        bad = nodes - len(good)
        alone = sum(node.alone for node in done.nodes)  # who goes on when the others have left
        most = world.blocks * (1 + alone) + 2 * bad * (share + 2)
        assert done.reads <= most, f"{told}: {done.reads} reads"
        assert alone <= bad, told


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 8, 64, 200])
def test_nodes_that_nothing_befalls_read_each_block_once(nodes: int) -> None:
    blocks, rate = max(2 * nodes, 60), 20 + nodes
    world = World(blocks, [Fate() for _ in range(nodes)], blocks_per_second=rate, roll_steps=4)
    world.sent_per_step = max(10, nodes)
    done = Simulation(world, random.Random(1))
    done.run(GIVE_UP_SECONDS)
    assert done.reads == blocks
    assert not any(node.alone for node in done.nodes)
    assert max(node.whole_at or NEVER for node in done.nodes) <= blocks / rate * 1.05 + 0.6


@pytest.mark.parametrize("nodes", [2, 4])
def test_where_links_are_slower_than_the_storage_one_reads_for_oneself(nodes: int) -> None:
    """Each has a storage of its own, which is faster than its link."""
    blocks = 200
    for sent in (1, 2, 4):
        world = World(blocks, [Fate() for _ in range(nodes)], shared=False, sent_per_step=sent)
        world.blocks_per_second = 50.0
        done = Simulation(world, random.Random(1))
        done.run(GIVE_UP_SECONDS)
        assert max(node.whole_at or NEVER for node in done.nodes) <= blocks / 50 * 1.2 + 1.5, sent


@pytest.mark.parametrize("starved", [5, 20])
def test_a_machine_on_which_all_starve_takes_nobody_for_gone(starved: int) -> None:
    fates = [Fate(starved_from=0.5, starved=starved) for _ in range(8)]
    done = Simulation(World(64, fates), random.Random(1))
    done.run(GIVE_UP_SECONDS)
    assert done.reads == 64
    assert not any(node.alone for node in done.nodes)


@pytest.mark.parametrize(("nodes", "seeds"), [(2, 60), (3, 60), (4, 60), (8, 40), (64, 1)])
def test_any_faults(nodes: int, seeds: int) -> None:
    for seed in range(seeds):
        play(seed, nodes)


@pytest.mark.soak
def test_any_faults_for_long() -> None:
    first = int(time.time()) * 1000
    for seed in range(first, first + 100 * SOAK_ROUNDS):
        play(seed, random.Random(seed).choice([2, 2, 3, 4, 4, 8, 16]))
    for seed in range(first, first + SOAK_ROUNDS // 10):
        play(seed, random.Random(seed).choice([64, 128]))
    print(f"{100 * SOAK_ROUNDS} seeds from {first} on, and {SOAK_ROUNDS // 10} of up to 128 nodes")
