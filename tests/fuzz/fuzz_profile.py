"""Fuzzes what is read of a profile, which lies in a folder that others may write to.

Inputs are drawn from well-formed ones, by changes to their JSON, to their packed numbers and to
their bytes; the same seed draws the same. Of every input:

- it is read, or refused with a ProfileError that is short;
- what is read lies in its files, sorted and apart, in no more ranges than the limit;
- what is read can be written again, and is the same then.
"""

from __future__ import annotations

import base64
import copy
import json
import random
import sys
import zlib
from collections.abc import Sequence
from typing import Any

from drawn_inputs import Input, require, run

from shardahead.prefetch.byte_ranges import Ranges, merged
from shardahead.prefetch.early_touches import is_small
from shardahead.prefetch.profile import (
    DOUBTING_LOADS,
    MAX_RANGES,
    Doubt,
    Profile,
    ProfileError,
    decoded,
    encoded,
)

GRAIN = 64 * 1024
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**16,
    2**40,
    2**63,
    2**64,
    1e308,
    "",
    "x",
    [],
    {},
    [[]],
    "\ud800",
]


def draw_profile(rng: random.Random) -> bytes:
    files = []
    ranges = []
    for number in range(rng.randrange(5)):
        size = rng.choice([0, 1, GRAIN, GRAIN + 1, rng.randrange(2**20), rng.randrange(2**40)])
        grains = -(-size // GRAIN)
        drawn = [
            (rng.randrange(grains), rng.randrange(1, 9))
            for _ in range(rng.randrange(9) if grains else 0)
        ]
        clipped = [(at * GRAIN, min((at + n) * GRAIN, size) - at * GRAIN) for at, n in drawn]
        files.append((f"model-{number}.safetensors", size))
        ranges.append(merged(clipped))
    order = tuple(rng.sample(range(len(files)), rng.randrange(len(files) + 1)))
    doubt = rng.choice([None, Doubt(rng.randrange(1, DOUBTING_LOADS), tuple(ranges))])
    early = tuple(each[: rng.randrange(3)] for each in ranges)
    early = rng.choice([(), early if any(early) and is_small(early) else ()])
    made = Profile(tuple(files), "rank 0 of 2", GRAIN, tuple(ranges), order, "0", doubt, early)
    content = encoded(made)
    assert content is not None
    return content


def draw(rng: random.Random) -> tuple[str, bytes]:
    content = draw_profile(rng)
    kind = rng.randrange(4)
    if kind == 1:
        made: dict[str, Any] = json.loads(content)
        for _ in range(rng.randrange(1, 3)):
            part = made.get("doubt") if rng.randrange(2) else made
            if not isinstance(part, dict):
                part = made
            name = rng.choice([*part, "ranges", "doubt", "early", "more"])
            part[name] = copy.deepcopy(rng.choice([*VALUES, part.get(name)]))
        content = json.dumps(made).encode()
    elif kind == 2:
        made = json.loads(content)
        part = made.get("doubt") or made
        name = "early" if "early" in made and rng.randrange(2) else "ranges"
        part = made if name == "early" else part
        numbers = bytearray(zlib.decompress(base64.b64decode(part[name])))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(numbers) + 1)
            numbers[at : at + rng.randrange(2)] = rng.randbytes(rng.randrange(3))
        part[name] = base64.b64encode(zlib.compress(bytes(numbers))).decode()
        content = json.dumps(made).encode()
    elif kind == 3:
        changed = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(changed) + 1)
            changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        content = bytes(changed)
    return "profile", content


def check_ranges(found: Profile, of_files: Sequence[Ranges]) -> None:
    require(len(of_files) == len(found.files), "each file has ranges")
    require(sum(map(len, of_files)) <= MAX_RANGES, "no more ranges than the limit")
    for (_, size), ranges in zip(found.files, of_files, strict=True):
        require(ranges == merged(ranges), "ranges are sorted and apart")
        require(not ranges or sum(ranges[-1]) <= size, "ranges lie in their file")
        require(all(offset >= 0 for offset, _ in ranges), "ranges begin in their file")


def check(drawn: Input) -> None:
    try:
        found = decoded(drawn.content)
    except ProfileError as error:
        require(len(str(error)) < 200, "an error is short")
        return
    check_ranges(found, found.ranges)
    if found.doubt is not None:
        check_ranges(found, found.doubt.ranges)
        require(0 < found.doubt.loads < DOUBTING_LOADS, "the doubt is of few loads")
    if found.early:
        check_ranges(found, found.early)
        require(is_small(found.early), "little is asked for early")
    again = encoded(found)
    require(again is not None and decoded(again) == found, "it can be written again")


if __name__ == "__main__":
    sys.exit(run(__doc__, draw, check))
