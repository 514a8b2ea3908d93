"""Why not all is warm, from told reports of rounds: what is over, and what still holds."""

from __future__ import annotations

import dataclasses
import errno

import pytest

from shardahead.command.shortfalls import Shortfalls
from shardahead.prefetch.report import Report

A, B = "/m/a", "/m/b"
BOTH = [A, B]


def report(**changes: object) -> Report:
    zeros = {"int": 0, "float": 0.0, "str": "", "bool": False, "bool | None": None}
    plain = {f.name: zeros.get(str(f.type), ()) for f in dataclasses.fields(Report)}
    plain |= {"done": True, "window_source": "memory", "window_bytes": 1024}
    return Report(**{**plain, **changes})  # type: ignore[arg-type]


def bad(path: str, **changes: object) -> Report:
    error = OSError(errno.EIO, "Input/output error", path)
    return report(**{"errors": (error,), "error_count": 1, "failed_bytes": 1, **changes})


CLEAN = report()
SHORT = report(left_out_bytes=2048)


def test_what_failed_is_over_once_it_came() -> None:
    shortfalls = Shortfalls()
    assert shortfalls.note(bad(A), BOTH, BOTH) == [A]
    assert str(shortfalls.failed).startswith("open '/m/a': Input/output error")
    assert shortfalls.note(CLEAN, [B], [B]) == []
    assert shortfalls.failed
    shortfalls.note(CLEAN, [A], [])
    assert shortfalls.failed is None


def test_what_failed_and_is_not_there_any_more_is_forgotten() -> None:
    shortfalls = Shortfalls()
    shortfalls.note(bad(A), BOTH, BOTH)
    shortfalls.note_failure(B, "b")
    shortfalls.keep_only([B])
    assert shortfalls.failed == "b"
    shortfalls.keep_only([])
    assert shortfalls.failed is None


@pytest.mark.parametrize("path", ["", "/dev/shm/board"])
def test_an_error_of_no_shard_is_one_of_all_of_the_round(path: str) -> None:
    shortfalls = Shortfalls()
    assert shortfalls.note(bad(path), BOTH, BOTH) == BOTH
    shortfalls.note(CLEAN, [A], [A])
    assert shortfalls.failed
    shortfalls.note(CLEAN, [B], [B])
    assert shortfalls.failed is None


def test_errors_that_are_not_told_are_of_all_of_the_round() -> None:
    assert Shortfalls().note(bad(A, error_count=2), BOTH, BOTH) == BOTH


def test_what_others_could_not_read() -> None:
    shortfalls = Shortfalls()
    assert shortfalls.note(report(failed_bytes=1024), BOTH, BOTH) == BOTH
    assert shortfalls.failed == "1.00 KiB could not be read by others"


def test_what_was_left_out_is_so_until_that_file_came() -> None:
    shortfalls = Shortfalls()
    shortfalls.note(SHORT, BOTH, BOTH)
    text = "2.00 KiB left out, beyond the 1.00 KiB that fit in memory"
    assert shortfalls.left_out == text
    shortfalls.note(CLEAN, [A], [A])
    assert shortfalls.left_out == text
    shortfalls.note(CLEAN, [B], [B])
    assert shortfalls.left_out is None


def test_what_was_left_out_is_told_apart_from_what_failed() -> None:
    shortfalls = Shortfalls()
    shortfalls.note(bad(A, left_out_bytes=2048), BOTH, BOTH)
    assert "left out" not in str(shortfalls.failed)
    assert "Input" not in str(shortfalls.left_out)


def test_what_did_not_stay_is_so_until_it_came_anew_or_went() -> None:
    shortfalls = Shortfalls()
    shortfalls.note_left_out(BOTH, "few")
    shortfalls.note(CLEAN, [A], [A])
    assert shortfalls.left_out == "few"
    shortfalls.keep_only([A])
    assert shortfalls.left_out is None


@pytest.mark.parametrize("path", [A, None])
def test_a_page_that_cannot_be_read_is_one_until_its_file_came_whole(path: str | None) -> None:
    """Where a part of it is brought back, the page is taken for resident."""
    shortfalls = Shortfalls()
    shortfalls.note_unusable(OSError(errno.EIO, "Input/output error", path), [A])
    assert "Input/output error" in str(shortfalls.failed)
    shortfalls.note(CLEAN, [A], [])
    assert shortfalls.failed
    shortfalls.note(SHORT, [A], [A])
    assert shortfalls.failed
    shortfalls.note(CLEAN, [A], [A])
    assert shortfalls.failed is None
