"""One file that torch.save wrote, opened once: its bytes, and what torch.load makes of them.

Only torch.load(weights_only=True) ever unpickles. What it is given is a descriptor that is known
to be of a regular file: by its path it could wait for ever for the writer of a FIFO. One thread.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import struct
import sys
import tarfile
from types import TracebackType
from typing import Any

from shardahead.checkpoint import pt_archive
from shardahead.checkpoint.errors import ContentsError
from shardahead.checkpoint.file_kind import kind_of_no_pt_file
from shardahead.checkpoint.opening import open_regular
from shardahead.units import format_bytes, quoted

#: The pickles of a file from before torch 1.6, which has no directory that tells their sizes.
MAX_OLD_PICKLE_BYTES = 32 << 20
MAX_OLD_OBJECT_BYTES = 64 << 20

_PREFIX_BYTES = 512

# Whatever torch.load meets in what is no checkpoint.
_REFUSALS = (
    pickle.PickleError,
    tarfile.TarError,
    struct.error,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    SystemError,
)
# Whose code runs within torch.load: weights_only calls nothing that a file names.
_OF_LOADING = {"torch", "numpy", "shardahead", *sys.stdlib_module_names}
_NO_MEMORY = re.compile(r"allocate memory|unable to mmap|bad_alloc|out of memory", re.IGNORECASE)
_NO_MAPPING = re.compile(r"unable to (?:mmap|open|stat)")
_ASKED = re.compile(r"(?:tried to allocate|unable to mmap) (\d+) bytes")


class PtFile:
    """An open file. Raises OSError, with errno and filename, where it is no regular one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor, status = open_regular(path)
        self.size_bytes: int = status.st_size

    def __enter__(self) -> PtFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """These bytes. Raises ContentsError where the file never had them."""
        if offset + length > self.size_bytes:
            raise pt_archive.damaged("it names bytes beyond its end")
        content = bytearray()
        while len(content) < length:
            try:
                piece = os.pread(self._descriptor, length - len(content), offset + len(content))
            except OSError as error:
                error.filename = self.path
                raise
            if not piece:
                raise self._shorter()
            content += piece
        return bytes(content)

    def is_archive(self) -> bool:
        magic = pt_archive.MAGIC
        return self.size_bytes >= len(magic) and self.read(0, len(magic)) == magic

    def load_mapped(self) -> Any:
        """What torch.load makes of a mapping of the archive. Raises MapError where there can be no
        mapping, and else as `load`.
        """
        name = f"/proc/self/fd/{self._descriptor}"
        try:
            same = os.path.samestat(os.stat(name), os.fstat(self._descriptor))
        except OSError:
            same = False
        if not same:
            raise MapError("there is no /proc to open it by")
        return self._load(name, mmap=True)

    def load(self) -> Any:
        """What torch.load reads into memory. Raises OSError with errno and filename where bytes
        cannot be read or memory is short, ContentsError where torch refuses the file.
        """
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        raw = io.FileIO(self._descriptor, "rb", closefd=False)
        with io.BufferedReader(raw) if self.is_archive() else _OldPickles(raw) as file:
            return self._load(file, mmap=False)

    def _load(self, file: str | io.BufferedReader[Any], *, mmap: bool) -> Any:
        import torch

        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
        except OSError as error:
            if _is_of_the_caller(error):
                raise
            if mmap and error.filename == file:
                raise MapError(error.strerror) from error
            error.filename = error.filename or self.path
            raise
        except (MemoryError, *_REFUSALS) as error:
            if _is_of_the_caller(error):
                raise
            text = str(error)
            if os.fstat(self._descriptor).st_size < self.size_bytes:
                raise self._shorter() from error
            if mmap and _NO_MAPPING.search(text):
                raise MapError(text.rpartition(": ")[2]) from error
            if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
                raise self._no_memory(text) from error
            cut_off = "unexpected EOF" in text or (isinstance(file, _OldPickles) and file.ended)
            cause = "it is cut off" if cut_off else _cause(error)
            kind = kind_of_no_pt_file(self.read(0, min(self.size_bytes, _PREFIX_BYTES)))
            cause = f"it looks like {kind}" if kind else cause
            raise ContentsError(f"is no checkpoint of tensors alone: {cause}") from error

    def _shorter(self) -> OSError:
        text = f"the file became shorter: it had {self.size_bytes} bytes"
        return OSError(errno.ENODATA, text, self.path)

    def _no_memory(self, text: str) -> Exception:
        asked = _ASKED.search(text)
        if asked and int(asked[1]) > self.size_bytes and not self.is_archive():
            return ContentsError(
                f"is no checkpoint of tensors alone: it names a storage of {asked[1]} bytes, and "
                f"has {self.size_bytes}"
            )
        much = f" for {format_bytes(int(asked[1]))}" if asked else ""
        return OSError(errno.ENOMEM, f"not enough memory{much} to load it", self.path)


class MapError(Exception):
    """The file cannot be mapped, and the text says why; it may be read."""


class _OldPickles(io.BufferedReader):
    """A file of pickles and raw storages, which torch reads by the descriptor: what passes here is
    pickled, and must stay within the limits.
    """

    _bytes_left = MAX_OLD_PICKLE_BYTES
    _object_bytes_left = MAX_OLD_OBJECT_BYTES
    ended = False  # more was wanted than there is

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.ended = False
        return super().seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        content = self._counted(super().read(self._cut(size)))
        self.ended = len(content) < (size or 0)
        return content

    def readline(self, size: int | None = -1) -> bytes:
        return self._counted(super().readline(self._cut(size)))

    def _cut(self, size: int | None) -> int:
        most = self._bytes_left + 1
        return most if size is None or size < 0 else min(size, most)

    def _counted(self, content: bytes) -> bytes:
        self._bytes_left -= len(content)
        self._object_bytes_left -= pt_archive.OBJECT_BYTES.get(content, 0)
        if self._bytes_left < 0 or self._object_bytes_left < 0:
            raise ValueError(
                f"pickles of more than {format_bytes(MAX_OLD_PICKLE_BYTES)}, or that may need more "
                f"than {format_bytes(MAX_OLD_OBJECT_BYTES)} of objects; these are the limits"
            )
        return content


def _is_of_the_caller(error: BaseException) -> bool:
    """Whether code that has nothing to do with loading raised it: a signal handler, which may run
    anywhere.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] not in _OF_LOADING


def _cause(error: BaseException) -> str:
    """What torch's unpickler says by itself, without the advice around it; one short line."""
    within = error.__context__
    text = str(within if isinstance(within, pickle.UnpicklingError) else error)
    refused = re.search(r"GLOBAL (\S+)", text)
    if refused:
        return f"it needs {quoted(refused[1])}, which torch.load(weights_only=True) does not allow"
    return f"{type(error).__name__}: {quoted(' '.join(text.split()))}"
