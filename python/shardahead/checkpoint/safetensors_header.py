"""Where each tensor lies in a safetensors file: the header, read and checked, without torch.

Every way to load asks this module alone, so that all of them accept the same files. It takes what
the safetensors library takes, but for duplicate keys and for entries that are no objects; and it
names file and tensor. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isfinite
from reprlib import repr as shortened
from typing import Any, NamedTuple, NoReturn

from shardahead import _core
from shardahead.checkpoint.dtypes import DTYPE_BITS, bits_of, library_knows
from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.file_kind import file_kind
from shardahead.checkpoint.opening import naming, open_regular
from shardahead.units import quoted

MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
#: The most tensors of one file.
MAX_TENSORS = 2**19
#: The most values of any kind in the JSON of one header: a tensor of two dimensions has eight.
MAX_VALUES = 8 * MAX_TENSORS
#: How deep objects and lists may lie in one another: as the safetensors library.
MAX_DEPTH = 127
#: As much of a file tells whether it is another kind of file.
PREFIX_BYTES = 512
_LENGTH_BYTES = 8

# Half of a character: JSON can write it, UTF-8 and the safetensors library cannot.
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


class TensorPart(NamedTuple):
    """How a part of a tensor lies between its first byte and its last; shared by all that lie so.

    `strides` are those of the whole tensor, in elements. `runs`: None where the bytes adjoin.
    `spans`: (offset from the first byte, length) of what is prefetched, with the short gaps.
    """

    strides: tuple[int, ...]
    runs: _core.ByteRuns | None
    wanted_bytes: int
    spans: tuple[tuple[int, int], ...]


class TensorRange(NamedTuple):
    """One tensor's bytes in its file: [offset, offset + length). `dtype` as the file names it.

    Of a `part` it is from the first byte that is wanted to the last, and `shape` is the part's.
    """

    name: str
    offset: int
    length: int
    dtype: str = ""
    shape: tuple[int, ...] = ()
    part: TensorPart | None = None

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def runs(self) -> _core.ByteRuns | None:
        """Where not all bytes of the range are wanted: those that are."""
        return None if self.part is None else self.part.runs

    @property
    def wanted_bytes(self) -> int:
        return self.length if self.part is None else self.part.wanted_bytes


def spans_of(tensors: Iterable[TensorRange]) -> list[tuple[int, int]]:
    """(offset, length) of what is prefetched for them; nothing for empty ones."""
    spans: list[tuple[int, int]] = []
    for _, offset, length, _, _, part in tensors:
        if part is None or len(part.spans) == 1:
            if length:
                spans.append((offset, length))
        else:
            spans.extend([(offset + at, length) for at, length in part.spans])
    return spans


@dataclass(frozen=True)
class Header:
    """Tensors, by ascending offset where they were read; `data_offset` is where the header ends and
    the data begin. `digest` is of its bytes: two versions of a file mostly differ there.
    """

    data_offset: int
    tensors: tuple[TensorRange, ...]
    digest: bytes = field(default=b"", compare=False)


def read_header(path: str) -> Header:
    """The header of the file `path`.

    Raises OSError as open and read do, and where it is no regular file, and CheckpointError where
    it is not a safetensors file or its header contradicts its size or itself.
    """
    descriptor, status = open_regular(path)
    try:
        with naming(path):
            # Else a page gets a mark, at which whoever uses it has the kernel read on, into what
            # nobody may want.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            content = read_content(
                status.st_size, lambda offset, length: _pread_full(descriptor, length, offset)
            )
        return parse_header(path, content, status.st_size)
    finally:
        os.close(descriptor)


def read_content(size_bytes: int, read: Callable[[int, int], bytes]) -> bytes:
    """What parse_header takes of a file of `size_bytes`, of which `read(offset, length)` reads."""
    head = read(0, min(size_bytes, PREFIX_BYTES))
    end = _LENGTH_BYTES + int.from_bytes(head[:_LENGTH_BYTES], "little")
    if not len(head) < end <= min(size_bytes, _LENGTH_BYTES + MAX_HEADER_BYTES):
        return head
    return head + read(len(head), end - len(head))


def header_digest(content: bytes) -> bytes:
    """`Header.digest` of a file that begins with `content`, as read_content gives it."""
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    return hashlib.blake2b(memoryview(content)[:end], digest_size=16).digest()


def parse_header(path: str, content: bytes, size_bytes: int) -> Header:
    """The header of a file of `size_bytes` that begins with `content`. Raises as read_header."""
    length = _length(path, content, size_bytes)
    data_offset = _LENGTH_BYTES + length
    entries = _entries(path, content, data_offset)
    metadata = entries.pop("__metadata__", None)
    _check_metadata(path, metadata)
    tensors = [
        _tensor(path, name, entry, data_offset, size_bytes) for name, entry in entries.items()
    ]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.length))
    header = Header(data_offset, tuple(tensors), header_digest(content))
    check_tiles(path, header, size_bytes)
    if _HALF_CHARACTER.search(content, _LENGTH_BYTES, data_offset):
        _check_characters(path, entries, metadata)
    return header


def check_tiles(path: str, header: Header, size_bytes: int) -> None:
    """Raises CheckpointError where the tensors overlap or leave a gap, which the format forbids."""
    at = header.data_offset
    for tensor in header.tensors:
        if tensor.offset != at:
            raise CheckpointError(
                f"{path!r}: tensor {quoted(tensor.name)} begins at byte {tensor.offset}, "
                f"not at {at}",
                path,
                tensor.name,
            )
        at = tensor.end
    if at != size_bytes:
        text = f"{path!r}: its tensors end at byte {at}, the file has {size_bytes}"
        raise CheckpointError(text, path)


def _length(path: str, content: bytes, size_bytes: int) -> int:
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if size_bytes >= _LENGTH_BYTES and (
        2 <= length <= min(MAX_HEADER_BYTES, size_bytes - _LENGTH_BYTES)
    ):
        return length
    kind = _other_kind(content)
    if kind is not None:
        raise CheckpointError(f"{path!r}: not a safetensors file: it looks like {kind}", path)
    found = f"a header of {length} bytes in a file of {size_bytes}"
    if size_bytes < _LENGTH_BYTES:
        found = f"it has {size_bytes} bytes"
    raise CheckpointError(f"{path!r}: not a safetensors file, or truncated: {found}", path)


def _other_kind(content: bytes) -> str | None:
    """What it is instead; None for what begins as a safetensors file, of any length."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if length <= MAX_HEADER_BYTES and content[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{":
        return None
    return file_kind(content[:PREFIX_BYTES])


def _entries(path: str, content: bytes, end: int) -> dict[str, Any]:
    """The JSON of the header. How much it would become is found out before it becomes that."""
    text = content[_LENGTH_BYTES:end]
    values, objects, depth = _core.json_extent(text)
    for what, found, most in (
        ("tensors", objects - 1, MAX_TENSORS + 1),
        ("values", values, MAX_VALUES),
        ("levels", depth, MAX_DEPTH),
    ):
        if found > most:
            raise CheckpointError(
                f"{path!r}: not a safetensors header that is read: {found} {what}, the limit is "
                f"{most}",
                path,
            )
    try:
        decoded = text.decode()
        del text
        entries = json.loads(
            decoded,
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        # Not repr(): that of a UnicodeDecodeError has all of the header in it.
        kind = _other_kind(content)
        reason = f"it looks like {kind}" if kind else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path!r}: not a safetensors header: {reason}", path) from None
    if not isinstance(entries, dict):
        problem = f"not a safetensors header: it is {shortened(entries)}"
        raise CheckpointError(f"{path!r}: {problem}", path)
    return entries


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {quoted(twice)} is there twice")
    return made


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _check_metadata(path: str, metadata: object) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        text = f"{path!r}: its __metadata__ is no object: {shortened(metadata)}"
        raise CheckpointError(text, path)
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise CheckpointError(
                f"{path!r}: in its __metadata__ {quoted(name)} is not a string: {shortened(value)}",
                path,
            )


def _check_characters(path: str, *parts: object) -> None:
    try:
        json.dumps(parts, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        text = f"{path!r}: not a safetensors header: half a character in it: {error.reason}"
        raise CheckpointError(text, path) from None


def _tensor(path: str, name: str, entry: Any, data_offset: int, size_bytes: int) -> TensorRange:
    def refuse(reason: str) -> NoReturn:
        raise CheckpointError(f"{path!r}: tensor {quoted(name)} {reason}", path, name)

    if type(entry) is not dict:
        refuse(f"has an entry that is no object: {shortened(entry)}")
    for key in ("dtype", "shape", "data_offsets"):
        if key not in entry:
            refuse(f"has no {key!r}")
    offsets, dtype, shape = entry["data_offsets"], entry["dtype"], entry["shape"]
    # Not isinstance: True is an int.
    if type(offsets) is not list or [type(at) for at in offsets] != [int, int]:
        refuse(f"has data_offsets that are not two whole numbers: {shortened(offsets)}")
    begin, end = offsets
    if not 0 <= begin <= end <= size_bytes - data_offset:
        refuse(
            f"lies in bytes {_number(data_offset + begin)} to {_number(data_offset + end)}, "
            f"the file has {size_bytes}"
        )
    if type(shape) is not list or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        refuse(f"has a shape that is no list of sizes: {shortened(shape)}")
    if type(dtype) is not str or not (dtype in DTYPE_BITS or library_knows(dtype)):
        refuse(f"has a dtype that is not known: {shortened(dtype)}")
    bits = DTYPE_BITS.get(dtype)
    # Of another dtype the safetensors library knows the bits, which makes such a tensor.
    if bits is not None and bits_of(shape, bits) != 8 * (end - begin):
        refuse(f"of {dtype} with shape {shortened(shape)} has {end - begin} bytes")
    return TensorRange(name, data_offset + begin, end - begin, dtype, tuple(shape))


def _number(value: int) -> str:
    return str(value) if abs(value) < 2**128 else "a number out of range"


def _pread_full(descriptor: int, length: int, offset: int) -> bytes:
    parts = []
    while length > 0:
        part = os.pread(descriptor, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)
