"""Fuzzes what Python parses of untrusted files: the headers of safetensors files, and indexes.

Inputs are drawn from a few well-formed ones, by changes to their JSON and to their bytes; the same
seed draws the same. Of every input:

- it is read, or refused with a CheckpointError that names the file, short and fit for a terminal;
- what is read lies in the file;
- a file that the safetensors library reads is read here as well, with the same bytes per tensor,
  and no other one; but for duplicate keys and a few forms that no one writes, which that lets pass;
- every way to load gives the same tensors, or the same error: of one input in twenty, with torch;
- an index leads to no file outside its folder.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from drawn_inputs import Input, require, run
from safetensors import SafetensorError, deserialize

from shardahead import (
    buffered_multi_thread_safetensors_weights_iterator,
    safetensors_weights_iterator,
)
from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.safetensors_header import parse_header
from shardahead.checkpoint.shards import resolve_shards

NAME = "fuzzed.safetensors"
WAYS: list[tuple[Any, dict[str, Any]]] = [
    (safetensors_weights_iterator, {}),
    (safetensors_weights_iterator, {"mode": "pread"}),
    (safetensors_weights_iterator, {"prefetch": False}),
    (safetensors_weights_iterator, {"names": lambda _name: True}),
    (buffered_multi_thread_safetensors_weights_iterator, {}),
]
WAYS_EVERY = 20  # they take milliseconds each
#: What is refused here alone: see safetensors_header.py.
STRICTER = ("is there twice", "no object", "a dtype that is not known", "no list of sizes")
#: Numbers that the safetensors library cannot take where their value does not matter.
ODD_NUMBERS = re.compile(rb"-0|[0-9]{300}")
NUMBERS = [0, 1, -1, 7, 8, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 1e308, 0.5]
TEXTS = [
    "",
    "F32",
    "U8",
    "BF16",
    "__metadata__",
    "a",
    "\x1b[2J",
    "a\nb",
    "\u202e",
    "\ud800",
    "../../x",
]
NAMES = ["a.safetensors", "b.safetensors", "..", "../../etc/passwd", "/etc/passwd", "sub/../../x"]
NAMES += ["", "a\0b", "\udcff", "a\nb", "./a.safetensors", "sub/../a.safetensors", "\ud800"]
TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"1e999",
    b"NaN",
]
TOKENS += [b"-0", b"null", b"true", b"[" * 2000, b'{"a":' * 2000, b"9" * 5000]


def well_formed(rng: random.Random) -> tuple[dict[str, Any], int]:
    header: dict[str, Any] = {}
    at = 0
    for i in range(rng.randrange(5)):
        length = rng.randrange(20)
        header[f"t{i}"] = {"dtype": "U8", "shape": [length], "data_offsets": [at, at + length]}
        at += length
    if rng.random() < 0.3:
        header["__metadata__"] = {"format": "pt"}
    return header, at


def mutate(rng: random.Random, value: Any) -> Any:
    """The same JSON with one part replaced, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        changed = dict(value)
        what = rng.randrange(4)
        if what == 0:
            del changed[key]
        elif what == 1:
            changed[rng.choice(TEXTS)] = changed.pop(key)
        else:
            changed[key] = mutate(rng, value[key])
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return [*value[:i], mutate(rng, value[i]), *value[i + rng.randrange(2) :]]
    if isinstance(value, int) and rng.random() < 0.6:
        return value + rng.choice([-1, 1, 8, -8, 2**32])
    return rng.choice([*NUMBERS, *TEXTS, None, True, [], {}, [0, 1], {"a": 1}])


def damage(rng: random.Random, text: bytes) -> bytes:
    at, other = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
    what = rng.randrange(5)
    if what == 0:
        return text[:at] + rng.choice(TOKENS) + text[at:]
    if what == 1:
        return text[:at] + rng.choice(TOKENS) + text[other:]
    if what == 2:
        return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
    if what == 3:
        return text[:other] + text[at:]  # a part twice: duplicate keys
    return text[:at]


def draw_header(rng: random.Random) -> bytes:
    header, data_bytes = well_formed(rng)
    changed: Any = header
    for _ in range(rng.randrange(4)):
        changed = mutate(rng, changed)
    text = json.dumps(changed, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    for _ in range(rng.choice([0, 0, 1, 3])):
        text = damage(rng, text)
    length = len(text) if rng.random() < 0.95 else rng.choice([0, 1, 2**32, 2**63, 2**64 - 1])
    data_bytes += rng.choice([0, 0, 0, 0, 1, -1])
    return length.to_bytes(8, "little") + text + bytes(range(max(data_bytes, 0)))


def draw_index(rng: random.Random) -> bytes:
    entries = {f"t{i}": rng.choice(NAMES[:2]) for i in range(rng.randrange(4))}
    index: Any = {"metadata": {"total_size": 1}, "weight_map": entries}
    if entries and rng.random() < 0.6:
        entries[rng.choice([*entries, "x"])] = rng.choice(NAMES)
    for _ in range(rng.choice([0, 0, 1, 2])):
        index = mutate(rng, index)
    text = json.dumps(index).encode()
    for _ in range(rng.choice([0, 0, 1, 3])):
        text = damage(rng, text)
    return text


def check_message(error: Exception) -> None:
    message = str(error)
    require(message.isprintable(), "a message can be shown on one line of a terminal")
    require(len(message) < 20_000, "a message is not as long as the file")


def check_header(content: bytes) -> None:
    try:
        found = deserialize(content)  # type: ignore[no-untyped-call]
        theirs = {name: bytes(tensor["data"]) for name, tensor in found}
    except (SafetensorError, UnicodeDecodeError):
        theirs = None
    try:
        header = parse_header(NAME, content, len(content))
    except CheckpointError as error:
        check_message(error)
        require(error.path == NAME, "a refusal has the file as well")
        require(NAME in str(error), "a refusal names the file")
        stricter = any(reason in str(error) for reason in STRICTER)
        require(theirs is None or stricter, "what the safetensors library reads is read")
        return
    odd = ODD_NUMBERS.search(content) is not None
    require(theirs is not None or odd, "what the safetensors library refuses is refused")
    for tensor in header.tensors:
        require(header.data_offset <= tensor.offset, "a tensor begins behind the header")
        require(tensor.length >= 0 and tensor.end <= len(content), "a tensor lies in its file")
    if theirs is not None:
        ours = {tensor.name: content[tensor.offset : tensor.end] for tensor in header.tensors}
        require(ours == theirs, "the bytes are those that the safetensors library reads")


def outcome(make: Any, path: Path, options: dict[str, Any]) -> Any:
    import torch

    found = []
    try:
        for name, tensor in make(path, **options):
            raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
            found.append((name, tensor.dtype, tuple(tensor.shape), raw))
    except CheckpointError as error:
        require(not found, "a file is refused before any of its tensors is handed out")
        return str(error)
    return found


def check_ways(content: bytes, folder: Path) -> None:
    path = folder / NAME
    path.write_bytes(content)
    expected = outcome(WAYS[0][0], path, WAYS[0][1])
    for make, options in WAYS[1:]:
        require(outcome(make, path, options) == expected, f"all ways agree: {options}")
    try:
        parse_header(str(path), content, len(content))
    except CheckpointError as error:
        require(str(error) == expected, "all ways say what the parser says")


def check_index(content: bytes, folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_bytes(content)
    try:
        shards = resolve_shards(index)
    except (CheckpointError, OSError) as error:
        check_message(error)
        return
    for shard in shards:
        inside = os.path.realpath(shard.path).startswith(os.path.realpath(folder) + "/")
        require(inside, "an index leads to no file outside its folder")


def draw(rng: random.Random) -> tuple[str, bytes]:
    if rng.random() < 0.7:
        return "headers-header", draw_header(rng)
    return "headers-index", draw_index(rng)


def check(found: Input, folder: Path) -> None:
    if "index" in found.name:
        check_index(found.content, folder)
        return
    check_header(found.content)
    if found.number % WAYS_EVERY == 0:
        check_ways(found.content, folder)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sub").mkdir()
        for shard in ("a.safetensors", "b.safetensors"):
            (folder / shard).write_bytes(b"x")
        return run(__doc__, draw, partial(check, folder=folder))


if __name__ == "__main__":
    sys.exit(main())
