"""What is wrong with the contents of a checkpoint's files. No I/O; any thread.

Not for what the system refuses (OSError), nor for what a caller asks for (ValueError, TypeError).
"""

from __future__ import annotations

from typing import Any


class CheckpointError(ValueError):
    """A file's contents are not what they should be: it is of another format, cut off or damaged,
    contradicts itself or the index, is beyond the documented limits, or has a tensor that this
    version of torch cannot make. Raised in every mode; it can be pickled.

    path: the file; of an index that gives a tensor to a shard without it, the shard.
    tensor: the name of the tensor that is wrong; None where it is more than one, or something else.
    """

    def __init__(self, message: str, path: str, tensor: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.path, self.tensor), self.__dict__


class ContentsError(ValueError):
    """The same without the file, of which bytes alone are known: `of_file` names it."""

    def of_file(self, path: str) -> CheckpointError:
        return CheckpointError(f"{path!r} {self}", path)
