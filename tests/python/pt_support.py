"""What the tests of pt_weights_iterator share: archives written record by record, and tensors
compared in everything that torch.load gives.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from shardahead import pt_weights_iterator

torch = pytest.importorskip("torch")

Records = list[tuple[str, bytes]]


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def records_of(archive: bytes) -> Records:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return [(entry.filename, file.read(entry)) for entry in file.infolist()]


def packed(
    records: Iterable[tuple[str, bytes]],
    *,
    deflates: Callable[[str], bool] = lambda _name: False,
    alignment: int = 64,
    zip64: bool = False,
    descriptors: bool = False,
    comment: bytes = b"",
) -> bytes:
    """A zip archive; contents begin at multiples of `alignment`, of 1 where they come to lie."""
    content, entries = bytearray(), []
    flags = 8 if descriptors else 0
    for name, data in records:
        method = 8 if deflates(name) else 0
        if method:
            packer = zlib.compressobj(1, zlib.DEFLATED, -15)
            body = packer.compress(data) + packer.flush()
        else:
            body = data
        encoded, checksum, offset = name.encode(), zlib.crc32(data), len(content)
        sizes = (0, 0, 0) if descriptors else (checksum, len(body), len(data))
        room = -(offset + 30 + len(encoded)) % alignment
        padding = b"" if not room else b"FB" + struct.pack("<H", (room - 4) % 65536)
        if room and room < 4:
            padding, room = b"FB" + struct.pack("<H", room - 4 + alignment), room + alignment
        padding += bytes(room - len(padding))
        content += struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, method, 0, 0x21, *sizes,
                               len(encoded), len(padding))  # fmt: skip
        content += encoded + padding + body
        if descriptors:
            content += struct.pack("<4s3I", b"PK\7\x08", checksum, len(body), len(data))
        entries.append((encoded, method, checksum, len(body), len(data), offset))
    directory = b"".join(_entry(*entry, flags=flags, zip64=zip64) for entry in entries)
    count, at = len(entries), len(content)
    end = b""
    numbers = (count, count, len(directory), at)
    if zip64:
        end += struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, *numbers)
        end += struct.pack("<4sIQI", b"PK\6\7", 0, at + len(directory), 1)
        numbers = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *numbers, len(comment)) + comment
    return bytes(content) + directory + end


def _entry(
    name: bytes, method: int, checksum: int, packed_bytes: int, size: int, offset: int,
    *, flags: int, zip64: bool
) -> bytes:  # fmt: skip
    extra = struct.pack("<2H3Q", 1, 24, size, packed_bytes, offset) if zip64 else b""
    if zip64:
        size = packed_bytes = offset = 0xFFFFFFFF
    return (
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, flags, method, 0, 0x21, checksum,
                    packed_bytes, size, len(name), len(extra), 0, 0, 0, 0, offset)
        + name + extra
    )  # fmt: skip


def edited(content: object, **changed: bytes) -> Records:
    """The records of an archive with other contents: data_0=... for data/0."""
    return [
        (name, changed.get(name.partition("/")[2].replace("/", "_").replace(".", "_"), data))
        for name, data in records_of(saved(content))
    ]


def described(tensor: Any) -> tuple[Any, ...]:
    """All that can be told of a tensor, and its bytes."""
    told: tuple[Any, ...] = (type(tensor), tensor.dtype, tuple(tensor.shape), tensor.layout,
                             tensor.requires_grad, tensor.device.type)  # fmt: skip
    if tensor.device.type == "meta":
        return (*told, tensor.stride())
    if tensor.layout == torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
        return (*told, tensor.is_coalesced(), *map(described, parts))
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        return (*told, *map(described, parts))
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
        return (*told, *map(described, parts))
    if tensor.is_quantized:
        if tensor.qscheme() == torch.per_tensor_affine:
            scales = torch.tensor([tensor.q_scale(), tensor.q_zero_point()])
        else:
            scales = tensor.q_per_channel_scales()
        return (*told, tensor.qscheme(), described(scales), described(tensor.int_repr()))
    storage = tensor.untyped_storage()
    raw = torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes()
    where = (tensor.stride(), tensor.storage_offset(), tensor.is_conj(), tensor.is_neg())
    return (*told, *where, raw)


def by_torch(path: Path) -> Any:
    """What torch.load reads into memory."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=False)


def items_of(found: Any) -> list[tuple[Any, Any]]:
    """The tensors of a dictionary."""
    return [(name, described(value)) for name, value in found.items() if torch.is_tensor(value)]


def read(path: Path, **options: Any) -> list[tuple[Any, Any]]:
    return [(name, described(tensor)) for name, tensor in pt_weights_iterator(path, **options)]
