"""Why not all of what a stay wants is warm, by file: what could not be read, and what was left out.

Pure: it is told reports of rounds and paths. One thread notes, any may ask.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from shardahead.command.error_meanings import with_meaning
from shardahead.prefetch.report import Report
from shardahead.units import format_bytes


@dataclass
class Shortfalls:
    """Of one checkpoint, from round to round. What is said of a file is over once a round has
    brought it in, or it is there no longer.
    """

    _failed: dict[str, str] = field(default_factory=dict)
    # A round that does not bring in all of such a file takes what is wrong with it for resident.
    _unusable: dict[str, str] = field(default_factory=dict)
    _left_out: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> str | None:
        """Why one of them could not be brought in; None where all could."""
        return next(iter(list(self._failed.values()) + list(self._unusable.values())), None)

    @property
    def left_out(self) -> str | None:
        """Why something was not brought in though it could be read."""
        return next(iter(list(self._left_out.values())), None)

    def note(self, report: Report, paths: Sequence[str], whole: Collection[str]) -> list[str]:
        """A round is over that was to bring in something of each of `paths`, and all of those that
        are `whole`. Gives those that it could not.
        """
        for path in paths:
            self._failed.pop(path, None)
            self._left_out.pop(path, None)
        failed: dict[str, str] = {}
        for error in report.errors:
            for path in _whose(error, paths):
                failed.setdefault(path, with_meaning(error))
        if report.error_count > len(report.errors):
            for path in paths:
                failed.setdefault(path, with_meaning(report.errors[-1]))
        if report.failed_bytes and not report.error_count:
            text = f"{format_bytes(report.failed_bytes)} could not be read by others"
            failed = dict.fromkeys(paths, text)
        self._failed.update(failed)
        if report.left_out_bytes and not report.cancelled:
            only = replace(report, errors=(), error_count=0, failed_bytes=0)
            self._left_out |= dict.fromkeys(paths, only.incomplete_reason() or "")
        for path in whole:
            if path not in failed and path not in self._left_out:
                self._unusable.pop(path, None)
        return list(failed)

    def note_failure(self, path: str, text: str) -> None:
        """It could not be brought in."""
        self._failed.setdefault(path, text)

    def note_unusable(self, error: OSError, paths: Sequence[str]) -> None:
        """They came, and something of one of them cannot be read all the same."""
        self._unusable |= dict.fromkeys(_whose(error, paths), with_meaning(error))

    def note_left_out(self, paths: Sequence[str], text: str) -> None:
        """They came, and too little of them stayed."""
        self._left_out |= dict.fromkeys(paths, text)

    def keep_only(self, paths: Collection[str]) -> None:
        """The checkpoint is these."""
        for known in (self._failed, self._unusable, self._left_out):
            for path in [path for path in known if path not in paths]:
                del known[path]


def _whose(error: OSError, paths: Sequence[str]) -> Sequence[str]:
    """An error that names none of them is one of all."""
    return [error.filename] if error.filename in paths else paths
