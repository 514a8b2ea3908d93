"""The zip archive that torch.save writes: its directory, its limits, and what of it can be mapped.

It finds and refuses what torch's own reader finds and refuses, but looks at the sizes before
anything grows. No tensors, no unpickling, no file: bytes come from a function. Any thread.
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from shardahead.checkpoint.errors import ContentsError
from shardahead.units import format_bytes, quoted

#: The bytes of the file from an offset on, exactly so many.
Read = Callable[[int, int], bytes]

MAGIC = b"PK\x03\x04"

#: Limits of an archive. A checkpoint of 1 TB has 100,000 records and a pickle of 20 MB.
MAX_RECORDS = 1 << 20
MAX_DIRECTORY_BYTES = 256 << 20
#: All records unpacked: this, and so many times what the file has. Weights shrink by a third.
MAX_UNPACKED_BYTES = 256 << 20
MAX_UNPACKED_RATIO = 32
#: Pickles: this, and so much for each record, of which each is a storage with its names.
MAX_PICKLE_BYTES = 32 << 20
MAX_PICKLE_BYTES_PER_RECORD = 256
#: What unpickling may need at most of memory, in objects that a byte of the pickle makes.
MAX_OBJECT_BYTES = 256 << 20
MAX_OBJECT_BYTES_PER_RECORD = 4096

#: Of the opcodes that make objects of next to nothing, the bytes that each needs.
OBJECT_BYTES = {
    **dict.fromkeys((b"]", b"}", b"("), 72),
    **dict.fromkeys((b"\x85", b"\x86", b"\x87", b"t"), 56),
    **dict.fromkeys((b"R", b"\x81"), 200),
    b")": 8,
    b"\x8f": 236,
}

_END = struct.Struct("<4s4H2IH")
_END_MAGIC = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sIQI")
_LOCATOR_MAGIC = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2I4Q")
_END64_MAGIC = b"PK\x06\x06"
_ENTRY = struct.Struct("<4s6H3I5H2I")
_ENTRY_MAGIC = b"PK\x01\x02"
_LOCAL = struct.Struct("<4s5H3I2H")
_TAIL_BYTES = 0xFFFF + _END.size + _LOCATOR.size
_UNKNOWN = 0xFFFFFFFF  # a size or offset that the extra field of 64 bits has

_STORED, _DEFLATED = 0, 8
_PIECE_BYTES = 1 << 20
_FOLDER = 0x10  # in the external attributes
_ALIGNMENT = 16  # of a mapped record: what the widest element wants

# What builds tensors without a look at their bytes. With anything else in it, a file is read.
_GLOBAL = re.compile(rb"c([A-Za-z_][\w.]*)\n([A-Za-z_][\w.]*)\n")
_BUILDS_BLINDLY = re.compile(
    rb"torch(?:\.storage)? \w+Storage|torch \w+|collections (?:OrderedDict|Counter)|_codecs encode|"
    rb"(?:builtins|__builtin__) (?:set|bytearray|complex)|torch\.nn\.parameter Parameter|"
    rb"torch\._tensor _rebuild_from_type_v2|torch\._utils (?:_rebuild_tensor(?:_v[23])?|"
    rb"_rebuild_parameter(?:_with_state)?|_rebuild_meta_tensor_no_storage)"
)


class Record(NamedTuple):
    """One entry of the directory. Sizes as it says; the name is folded, for torch's reader tells
    upper and lower case not apart.
    """

    name: bytes
    method: int
    packed_bytes: int
    size_bytes: int
    header_offset: int


class Archive(NamedTuple):
    """The directory of an archive."""

    records: Sequence[Record]
    offset: int

    def named(self, end: bytes) -> list[Record]:
        """The records below the archive's own folder with this name."""
        return [record for record in self.records if record.name.partition(b"/")[2] == end]


def read_archive(read: Read, file_bytes: int) -> Archive:
    """Its directory. Raises ContentsError where torch finds none, and where it is larger than the
    limits, or what it names is.
    """
    offset, size, count = _find_directory(read, file_bytes)
    if count > MAX_RECORDS or size > MAX_DIRECTORY_BYTES:
        raise ContentsError(
            f"is an archive with a directory of {size} bytes and {count} records; the limits are "
            f"{MAX_DIRECTORY_BYTES} and {MAX_RECORDS}"
        )
    if size < count * _ENTRY.size or offset + size > file_bytes:
        raise damaged("its directory does not lie in it")
    records = list(_entries(read(offset, size), count))
    unpacked = sum(record.size_bytes for record in records)
    if unpacked > MAX_UNPACKED_BYTES + MAX_UNPACKED_RATIO * file_bytes:
        raise ContentsError(
            f"is an archive that would grow from {format_bytes(file_bytes)} to "
            f"{format_bytes(unpacked)}; the limit is {MAX_UNPACKED_RATIO} times the file and "
            f"{format_bytes(MAX_UNPACKED_BYTES)}"
        )
    return Archive(records, offset)


def check_pickles(archive: Archive, read: Read) -> bool:
    """Whether tensors are made of the pickle without a look at their bytes. Raises ContentsError
    where it is larger than the limits, or would grow beyond them.
    """
    most = MAX_PICKLE_BYTES + MAX_PICKLE_BYTES_PER_RECORD * len(archive.records)
    most_objects = MAX_OBJECT_BYTES + MAX_OBJECT_BYTES_PER_RECORD * len(archive.records)
    blindly = True
    for record in archive.named(b"data.pkl"):
        if max(record.size_bytes, record.packed_bytes) > most:
            raise ContentsError(
                f"is an archive with a pickle of {format_bytes(record.size_bytes)}; the limit is "
                f"{format_bytes(most)} for {len(archive.records)} records"
            )
        content = _content(record, read)
        needed = sum(content.count(opcode) * size for opcode, size in OBJECT_BYTES.items())
        if needed > most_objects:
            raise ContentsError(
                f"is an archive with a pickle that may need {format_bytes(needed)} of objects; the "
                f"limit is {format_bytes(most_objects)} for {len(archive.records)} records"
            )
        blindly &= all(
            _BUILDS_BLINDLY.fullmatch(b" ".join(match.groups()))
            for match in _GLOBAL.finditer(content)
        )
    return blindly


def check_packed(archive: Archive, read: Read) -> None:
    """Raises ContentsError where a record does not unpack to as many bytes as the directory says:
    torch's reader gives memory as it was for the rest.
    """
    for record in archive.records:
        if record.method == _DEFLATED and _unpacked_bytes(record, read) != record.size_bytes:
            name = quoted(record.name.decode(errors="replace"))
            raise damaged(f"{name} does not unpack to {record.size_bytes} bytes")


def plain_records(archive: Archive, read: Read) -> dict[int, int] | None:
    """The sizes of the records that hold storages, by the offset of their first byte; None where
    the bytes of one of them are not what its tensors are made of, as they lie in the file.
    """
    try:
        return _plain_records(archive, read)
    except ContentsError:  # in a record that torch's reader may have no use for
        return None


def _plain_records(archive: Archive, read: Read) -> dict[int, int] | None:
    records = sorted(archive.records, key=lambda record: record.header_offset)
    if not records or len({record.name for record in records}) < len(records):
        return None  # what is wrong, or which one is meant, torch's reader says
    orders = archive.named(b"byteorder")
    if not orders and sys.byteorder != "little":
        return None
    for order in orders:
        named = order.packed_bytes < _TAIL_BYTES and _content(order, read)
        if named != sys.byteorder.encode():
            return None
    places = {}
    ends = [*(record.header_offset for record in records[1:]), archive.offset]
    for record, end in zip(records, ends, strict=True):
        if not record.name.partition(b"/")[2].startswith(b"data/"):
            continue
        offset = _data_offset(record, read)
        size = record.size_bytes
        if record.method != _STORED or record.packed_bytes != size or offset + size > end:
            return None
        if size and offset % _ALIGNMENT:
            return None
        if size:
            places[offset] = size
    return places


def bases_of(storages: Collection[tuple[int, int]], places: Mapping[int, int]) -> list[int]:
    """Where the file may be mapped whose storages, (address, bytes) each, are its records, each one
    whole: the addresses of its byte 0. None where they are not; more than one where records of
    which there is no storage leave it open.
    """
    first = min(address for address, _ in storages)
    reach = max(address for address, _ in storages) - first
    return [
        first - offset
        for offset in places
        if offset + reach in places
        and (first - offset) % mmap.PAGESIZE == 0
        and all(places.get(address - first + offset) == size for address, size in storages)
    ]


def _find_directory(read: Read, file_bytes: int) -> tuple[int, int, int]:
    """Its offset, its size in bytes and how many records it has."""
    tail_offset = max(0, file_bytes - _TAIL_BYTES)
    tail = read(tail_offset, file_bytes - tail_offset)
    at = tail.rfind(_END_MAGIC, 0, max(0, len(tail) - _END.size + len(_END_MAGIC)))
    if at < 0:
        raise damaged("it has no directory at its end")
    _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
    if at >= _LOCATOR.size and tail.startswith(_LOCATOR_MAGIC, at - _LOCATOR.size):
        _, _, end64, _ = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
        if end64 > file_bytes - _END64.size:
            raise damaged("its directory does not lie in it")
        wide = _END64.unpack(read(end64, _END64.size))
        if wide[0] == _END64_MAGIC:
            count, size, offset = wide[7:]
    return offset, size, count


def _entries(content: bytes, count: int) -> Iterator[Record]:
    at = 0
    for _ in range(count):
        if len(content) - at < _ENTRY.size or not content.startswith(_ENTRY_MAGIC, at):
            raise damaged("its directory is cut off")
        fields = _ENTRY.unpack_from(content, at)
        method, packed_bytes, size = fields[4], fields[8], fields[9]
        name_bytes, extra_bytes, comment_bytes, header_offset = *fields[10:13], fields[16]
        begin, at = at + _ENTRY.size, at + _ENTRY.size + name_bytes + extra_bytes + comment_bytes
        if at > len(content):
            raise damaged("its directory is cut off")
        numbers = [size, packed_bytes, header_offset]
        if _UNKNOWN in numbers:
            extra = content[begin + name_bytes : begin + name_bytes + extra_bytes]
            numbers = _widened(numbers, extra)
        name = content[begin : begin + name_bytes].lower()
        if numbers[0] and (name.endswith(b"/") or fields[15] & _FOLDER):
            # Of which torch's reader reads nothing, and gives memory as it was.
            raise damaged(f"{quoted(name.decode(errors='replace'))} is a folder with contents")
        yield Record(name, method, numbers[1], numbers[0], numbers[2])


def _widened(numbers: list[int], extra: bytes) -> list[int]:
    """Those that are not known, from the extra field of 64 bits, where there is one."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == 1:
            field = extra[at : at + size]
            field = field[: len(field) // 8 * 8]
            wide = [n for (n,) in struct.iter_unpack("<Q", field)][::-1]
            return [wide.pop() if n == _UNKNOWN and wide else n for n in numbers]
        at += size
    return numbers


def _data_offset(record: Record, read: Read) -> int:
    header = _LOCAL.unpack(read(record.header_offset, _LOCAL.size))
    if header[0] != MAGIC:
        raise damaged("a record is not where its directory says")
    return int(record.header_offset + _LOCAL.size + header[9] + header[10])


def _content(record: Record, read: Read) -> bytes:
    """What a small record holds; nothing where torch's reader has to say what it is."""
    packed = read(_data_offset(record, read), record.packed_bytes)
    if record.method == _STORED:
        return packed
    if record.method != _DEFLATED:
        return b""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max(1, record.size_bytes))
    except zlib.error as error:
        raise damaged(f"a record cannot be unpacked ({error})") from error


def _unpacked_bytes(record: Record, read: Read) -> int:
    """By unpacking it piece by piece; -1 where that fails, or gives more than is said."""
    at = _data_offset(record, read)
    end = at + record.packed_bytes
    unpacker, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while at < end and not unpacker.eof:
            piece = read(at, min(_PIECE_BYTES, end - at))
            at += len(piece)
            while piece:
                unpacked += len(unpacker.decompress(piece, _PIECE_BYTES))
                if unpacked > record.size_bytes:
                    return -1  # and flush() would unpack all that is left
                piece = unpacker.unconsumed_tail
        return unpacked + len(unpacker.flush())
    except zlib.error:
        return -1


def damaged(what: str) -> ContentsError:
    """The error for an archive of which torch could make nothing either."""
    return ContentsError(f"is an archive that is cut off or damaged: {what}")
