"""What a file that is not of the format it was taken for looks like, by its first bytes. Pure; no
I/O.
"""

from __future__ import annotations

# (where it begins, the bytes, what has them there). Lower case is compared for text.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GGUF", "a GGUF file, which loaders of GGUF read"),
    (0, b"PK\x03\x04", "a zip archive, as torch.save writes: see pt_weights_iterator"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (0, b"\xfd7zXZ\x00", "compressed by xz"),
    (0, b"BZh", "compressed by bzip2"),
    (0, b"\x89HDF\r\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy file"),
    (257, b"ustar", "a tar archive"),
    (0, b"version https://git-lfs", "a pointer of git-lfs: `git lfs pull` fetches the file"),
)
_TEXT: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "a web page, as a download without access gives"),
    (b"<html", "a web page, as a download without access gives"),
    (b"<?xml", "XML, as an object store answers with an error"),
    (b"{", "JSON without the 8 bytes before it, as an index or a configuration is"),
)
_NEVER_WRITTEN = ("a pointer of git-lfs", "a web page", "XML", "zeros")


def file_kind(prefix: bytes) -> str | None:
    """What a file that begins with `prefix`, and is no safetensors file, looks like; None where
    that is not known. 512 bytes are enough.
    """
    for offset, magic, kind in _MAGIC:
        if prefix[offset : offset + len(magic)] == magic:
            return kind
    if len(prefix) > 1 and prefix[0] == 0x80 and 2 <= prefix[1] <= 5:
        return "a pickle, as torch.save wrote before version 1.6: see pt_weights_iterator"
    text = prefix.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for begin, kind in _TEXT:
        if text.startswith(begin):
            return kind
    if prefix and not any(prefix):
        return "zeros, as a download that did not end leaves"
    return None


def kind_of_no_gguf_file(prefix: bytes) -> str | None:
    """The same of a file that is to be GGUF."""
    return None if prefix.startswith(b"GGUF") else file_kind(prefix)


def kind_of_no_distributed_file(prefix: bytes) -> str | None:
    """The same of one of torch.distributed.checkpoint, which writes what it is given one behind
    the other, compressed if that is asked for: whatever a program writes, it is not these.
    """
    kind = file_kind(prefix)
    return kind if kind and kind.startswith(_NEVER_WRITTEN) else None


def kind_of_no_pt_file(prefix: bytes) -> str | None:
    """The same of a file of which torch.load could make nothing. What torch.save wrote is not
    known here: what is wrong with it, torch says.
    """
    if prefix[8:9] == b"{" and not any(prefix[4:8]):
        return "a safetensors file, which safetensors_weights_iterator reads"
    if prefix[:1] == b"{":
        return "JSON, as an index or a configuration is"
    torchs = prefix.startswith((b"PK\x03\x04", b"\x80")) or prefix[257:262] == b"ustar"
    return None if torchs else file_kind(prefix)
