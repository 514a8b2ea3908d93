"""The index of a checkpoint: a JSON file that says which shard holds which tensor.

What an index is called, and what it says, checked: it is untrusted. Which index of a folder counts
is not decided here. Reads one file and looks at no shard. Any thread.
"""

from __future__ import annotations

import json
import os
import re
from typing import cast

from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.opening import naming, open_regular
from shardahead.units import quoted

#: How many tensors an index may be expected to have. What is refused is one of which the text has
#: more than four times as many commas, colons and brackets, before it is parsed: one of a million
#: tensors has two million.
MAX_INDEX_TENSORS = 1 << 20
_MARKS = (b",", b":", b"[", b"{")
_MOST_MARKS = 4 * MAX_INDEX_TENSORS

#: The longest name of a file in an index, in bytes: the kernel takes no longer path.
MAX_NAME_BYTES = 4095

_PIECE_BYTES = 1 << 20

# "model.safetensors.index.json", and with a variant "model.safetensors.index.fp16.json".
_INDEX_NAME = re.compile(r"(.*)\.index(?:\.([^/]+))?\.json", re.IGNORECASE | re.DOTALL)


def parts_of_index_name(name: str) -> tuple[str, str] | None:
    """("model.safetensors", "fp16") of model.safetensors.index.fp16.json, the variant "" where
    there is none; None where it is not the name of an index. Upper and lower case are the same.
    """
    match = _INDEX_NAME.fullmatch(os.path.basename(name))
    return (match.group(1), match.group(2) or "") if match else None


def is_index_name(name: str) -> bool:
    return parts_of_index_name(name) is not None


def read_index(path: str, max_bytes: int) -> dict[str, str]:
    """The file name of each tensor, relative to the folder of the index, in the index's order.

    Raises CheckpointError where it is malformed, too large, gives a tensor to two files or names a
    file outside its folder; OSError as open and read do, and where it is no regular file.
    """
    content = _content(path, max_bytes)
    try:
        index = json.loads(content, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"not JSON: {error}") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if isinstance(weight_map, _Twice):
        raise _malformed(path, "it has two 'weight_map'")
    if not isinstance(weight_map, dict):
        raise _malformed(path, "it has no object 'weight_map'")
    if not weight_map:
        raise _malformed(path, "its 'weight_map' is empty")
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            problem = "two files" if isinstance(name, _Twice) else "not a string"
            raise _malformed(path, f"the file of {quoted(tensor)} is {problem}", tensor)
    files = cast("dict[str, str]", weight_map)
    for name in dict.fromkeys(files.values()):
        _refuse_unsafe_name(name, path)
    return files


class _Twice:
    """In place of the value of a key that has two."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON takes the last of two values without a word."""
    found = dict(pairs)
    if len(found) != len(pairs):
        values: dict[str, object] = {}
        for key, value in pairs:
            if values.setdefault(key, value) != value:
                found[key] = _Twice()
    return found


def _content(path: str, max_bytes: int) -> bytearray:
    # What the caller has looked at may be a FIFO by now.
    descriptor, status = open_regular(path)
    content = bytearray()
    with open(descriptor, "rb") as file, naming(path):
        if status.st_size > max_bytes:
            raise CheckpointError(f"index {path!r} is larger than {max_bytes} bytes", path)
        # In pieces: read(n) allocates n bytes, however few there are.
        while piece := file.read(_PIECE_BYTES):
            content += piece
            if len(content) > max_bytes:
                raise CheckpointError(f"index {path!r} is larger than {max_bytes} bytes", path)
    # Every value takes memory of its own: 128 MiB of "{}," would become some GB.
    marks = sum(content.count(mark) for mark in _MARKS)
    if marks > _MOST_MARKS:
        raise CheckpointError(
            f"index {path!r} has more than {MAX_INDEX_TENSORS} tensors, or is none: "
            f"{marks} commas, colons and brackets",
            path,
        )
    return content


def _refuse_unsafe_name(name: str, index: str) -> None:
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError as error:
        raise _malformed(index, f"not a file name: {quoted(name)}") from error
    if not encoded or b"\0" in encoded or len(encoded) > MAX_NAME_BYTES:
        raise _malformed(index, f"not a file name: {quoted(name)}")
    if name.startswith("/") or ".." in name.split("/"):
        text = f"index {index!r} names a file outside its folder: {quoted(name)}"
        raise CheckpointError(text, index)


def _malformed(index: str, problem: str, tensor: str | None = None) -> CheckpointError:
    return CheckpointError(f"malformed index {index!r}: {problem}", index, tensor)
