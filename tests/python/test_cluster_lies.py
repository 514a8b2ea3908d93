"""Peers that lie, by one that knows the secret, and strangers that do not: what they say is refused
and counted, and the replica is right.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MIB, MakeMount, clean_environment
from test_cluster import Nodes

LIAR = """
import os, socket, sys, tempfile, time
from shardahead import _core
from shardahead.checkpoint.shards import resolve_shards
from shardahead.cluster.lateness import OwnTime
from shardahead.cluster.link import Party
from shardahead.cluster.rendezvous import Address, listening_socket, parse_address
from shardahead.cluster.roll_keeper import RollKeeper
from shardahead.cluster.roll_watch import Entrant, join_roll
from shardahead.cluster.wire import (
    ALIVE, BLOCK, HAVE, NOT_HERE, WANT, Header, bits_of, pack_header,
)
from shardahead.replica.layout import Layout
from shardahead.replica.original import look_at

model, address, lie = sys.argv[1:]
original = look_at(resolve_shards(model))
layout = Layout([file.size_bytes for file in original.files])
address = parse_address(address)
secret = os.environ["SHARDAHEAD_SECRET"].encode()
kept = listening_socket(address)

def strange(address):
    for number in range(40):
        stranger = socket.create_connection((address.host, address.port))
        strangers.append(stranger)
        if number % 2:
            stranger.sendall(os.urandom(300))

strangers = []
keeper = RollKeeper(kept, 2, secret) if kept else None
entrant = Entrant(1, 2, original.contents, Address("127.0.0.1", 9), secret)
_, roll = join_roll(address, entrant, 60, lambda: None, OwnTime(0.0))
while not (here := [place for node, place in roll.newly_here() if node == 0]):
    time.sleep(0.01)
if lie == "strangers":
    strange(address)
    strange(here[0])
link = Party(1, 2, original.contents, secret).reach(0, here[0], 30)
link.tell_absent(bits_of(range(len(layout)), len(layout)))
link.set_timeout(None)
print("met", flush=True)
block = layout.block(1)
wrong = tempfile.TemporaryFile()
wrong.write(bytes([7]) * (64 << 20))
wrong.flush()
if lie == "wrong bytes":
    for number in range(1, len(layout), 2):
        length = layout.block(number).length
        link.send(Header(BLOCK, number, length, 12345), wrong.fileno())
elif lie == "wrong length":
    link.send(Header(BLOCK, 1, block.length - 1, 0), wrong.fileno())
elif lie == "no such block":
    link.send(Header(BLOCK, 10**9, block.length, 0), wrong.fileno())
elif lie == "too much":  # more than was said
    link.send(Header(BLOCK, 1, block.length, 0), wrong.fileno())
    link._channel.send(bytes(64 << 20))
elif lie == "garbage":
    link._channel.send(b"x" * 64)
elif lie == "huge length":
    link._channel.send(pack_header(link._key, 1, 0, Header(BLOCK, 1, 2**63, 0)))
elif lie == "wants what is not":
    link.send(Header(WANT, 10**9, 0, 0))
elif lie == "has what is not":
    link.send(Header(HAVE, 2**64 - 1, 0, 0))
elif lie == "replayed":
    said = pack_header(link._key, 1, 0, Header(ALIVE, 0, 0, 0))
    link._channel.send(said + said)
elif lie == "duplicates":
    with open(original.root + "/" + original.files[block.file].name, "rb") as file:
        file.seek(block.offset)
        content = file.read(block.length)
        for _ in range(3):
            header = Header(BLOCK, 1, block.length, _core.digest_of(content))
            link.send(header, file.fileno(), block.offset)
elif lie == "has nothing":
    for number in range(1, len(layout), 2):
        link.send(Header(NOT_HERE, number, 0, 0))
elif lie == "half closed":
    link._channel._socket.shutdown(socket.SHUT_WR)
elif lie == "a byte at a time":
    said = pack_header(link._key, 1, 0, Header(BLOCK, 1, block.length, 0)) + bytes(1000)
    for place in range(len(said)):
        link._channel.send(said[place:place + 1])
        time.sleep(0.1)
for _ in range(1000):  # reads nothing
    time.sleep(0.2)
    if lie not in ("silent", "too much", "half closed", "huge length", "replayed"):
        link.send(Header(ALIVE, 0, 0, 0))
"""


REFUSED = (
    *("wrong bytes", "wrong length", "no such block", "garbage", "too much", "huge length"),
    *("wants what is not", "has what is not", "replayed"),
)


@pytest.mark.parametrize(
    "lie",
    [
        "wrong bytes",
        "wrong length",
        "no such block",
        "too much",
        "garbage",
        "silent",
        "reads nothing",
        "strangers",
        "huge length",
        "wants what is not",
        "has what is not",
        "replayed",
        "duplicates",
        "has nothing",
        "half closed",
        "a byte at a time",
    ],
)
def test_whatever_a_peer_says_the_replica_is_right(
    tmp_path: Path, make_mount: MakeMount, lie: str
) -> None:
    nodes = Nodes(tmp_path, make_mount, 2, rate=0)
    env = {**clean_environment(), "SHARDAHEAD_SECRET": "a secret of the job"}
    words = [str(nodes.model), f"127.0.0.1:{nodes.port}", lie]
    liar = subprocess.Popen([sys.executable, "-c", LIAR, *words], env=env, start_new_session=True)
    try:
        said = nodes.end(0, nodes.start(0))
    finally:
        liar.kill()
        liar.wait()
    exchange = said["exchange"]
    assert exchange["received_bytes"] == (16 * MIB if lie == "duplicates" else 0)
    assert exchange["wrong_blocks"] == {"wrong bytes": 3, "too much": 1}.get(lie, 0)
    refused = 1 if lie in REFUSED else 20 if lie == "strangers" else 0
    assert exchange["refused"] == refused
