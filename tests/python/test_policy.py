"""Options from argument, environment or default; byte counts; and the report as text and JSON."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from typing import Any

import pytest
from conftest import REPOSITORY
from hypothesis import example, given
from hypothesis import strategies as st

from shardahead import Report, prefetch_files
from shardahead.prefetch.options import DEFAULT_PARTITION, Options, is_disabled, resolve_options
from shardahead.prefetch.report import describe_error
from shardahead.units import format_bytes, format_rate, parse_bytes

MIB = 1024**2

# (argument, field of the result, default, from the environment: text and value, from an argument)
OPTIONS: list[tuple[str, str, Any, str, Any, Any]] = [
    ("threads", "threads", 4, "7", 7, 9),
    ("block_size", "block_bytes", 16 * MIB, "2MiB", 2 * MIB, 4096),
    ("strategy", "strategy", "auto", "pread", "pread", "readahead"),
    ("partition", "partition", DEFAULT_PARTITION, "file", "file", "block"),
    ("window_bytes", "window_bytes", None, "1GiB", 1024**3, 5),
    ("inflight_bytes", "inflight_bytes", 0, "64MiB", 64 * MIB, 5),
]
RANGES: list[tuple[str, int, Any]] = [
    ("threads", 1, 256),
    ("block_size", 4096, 2**30),
    ("window_bytes", 0, 2**63 - 1),
    ("inflight_bytes", 0, 2**63 - 1),
]


def variable_of(argument: str) -> str:
    return "SHARDAHEAD_" + argument.upper()


@pytest.mark.parametrize(("argument", "field", "default", "text", "from_text", "given"), OPTIONS)
def test_argument_goes_before_environment_before_default(
    argument: str, field: str, default: Any, text: str, from_text: Any, given: Any
) -> None:
    environ = {variable_of(argument): text}
    assert getattr(resolve_options(environ={}), field) == default
    assert getattr(resolve_options(environ={variable_of(argument): ""}), field) == default
    assert getattr(resolve_options(environ=environ), field) == from_text
    assert getattr(resolve_options(Options(**{argument: given}), environ=environ), field) == given
    # What is not used is not judged either.
    environ = {variable_of(argument): "nonsense"}
    assert getattr(resolve_options(Options(**{argument: given}), environ=environ), field) == given


@pytest.mark.parametrize(("argument", "least", "most"), RANGES)
def test_ranges_of_numbers(argument: str, least: Any, most: Any) -> None:
    for value in (least, most):
        resolve_options(Options(**{argument: value}), environ={})
        resolve_options(environ={variable_of(argument): str(value)})
    for value in (least - 1, most + 1):
        with pytest.raises(ValueError, match=rf"^{argument} must be .*not {value}$"):
            resolve_options(Options(**{argument: value}), environ={})
    with pytest.raises(ValueError, match=rf"^{variable_of(argument)} must be .*not {most + 1}$"):
        resolve_options(environ={variable_of(argument): str(most + 1)})


@pytest.mark.parametrize("argument", [name for name, _, _ in RANGES])
@pytest.mark.parametrize("wrong", [True, 4096.0, b"4096", [4096]])
def test_what_is_not_a_whole_number_is_refused(argument: str, wrong: Any) -> None:
    message = rf"^{argument} must be a whole number, not {re.escape(repr(wrong))}$"
    with pytest.raises(TypeError, match=message):
        resolve_options(Options(**{argument: wrong}), environ={})


@pytest.mark.parametrize("argument", ["strategy", "partition"])
@pytest.mark.parametrize("wrong", ["", "fastest", "AUTO", 3, True])
def test_unknown_names_are_refused(argument: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{argument} must be one of .*not {wrong!r}$"):
        resolve_options(Options(**{argument: wrong}), environ={})


@pytest.mark.parametrize("argument", [option[0] for option in OPTIONS])
@pytest.mark.parametrize("wrong", ["-1", "1.5", "many", " "])
def test_nonsense_in_the_environment_names_the_variable(argument: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{variable_of(argument)}\\b") as caught:
        resolve_options(environ={variable_of(argument): wrong})
    assert repr(wrong.strip()) in str(caught.value) or repr(wrong) in str(caught.value)


def test_the_block_size_may_be_given_in_mib() -> None:
    both = {"SHARDAHEAD_BLOCK_SIZE": "64KiB", "SHARDAHEAD_BLOCK_SIZE_MB": "2"}
    assert resolve_options(environ={"SHARDAHEAD_BLOCK_SIZE_MB": "2"}).block_bytes == 2 * MIB
    assert resolve_options(environ=both).block_bytes == 64 * 1024
    assert resolve_options(environ={**both, "SHARDAHEAD_BLOCK_SIZE": ""}).block_bytes == 2 * MIB
    assert resolve_options(environ={"SHARDAHEAD_BLOCK_SIZE_MB": ""}).block_bytes == 16 * MIB
    for wrong in ("abc", "-1", "16MiB", "16M"):
        message = rf"^SHARDAHEAD_BLOCK_SIZE_MB: not a number of MiB: '{wrong}' \(example: 16\)$"
        with pytest.raises(ValueError, match=message):
            resolve_options(environ={"SHARDAHEAD_BLOCK_SIZE_MB": wrong})
    for wrong in ("0", "4096"):
        with pytest.raises(ValueError, match=r"^SHARDAHEAD_BLOCK_SIZE_MB\b"):
            resolve_options(environ={"SHARDAHEAD_BLOCK_SIZE_MB": wrong})


@pytest.mark.parametrize(
    ("text", "disabled"),
    [("1", True), ("true", True), ("yes", True), ("on", True)]
    + [(text, False) for text in ("", " ", "0", "false", "No")],
)
def test_disable(text: str, disabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_disabled({"SHARDAHEAD_DISABLE": text}) is disabled
    monkeypatch.setenv("SHARDAHEAD_DISABLE", text)
    assert is_disabled() is disabled
    assert not is_disabled({})


# ---- byte counts ----


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("16777216", 2**24),
        ("16MiB", 2**24),
        ("16M", 2**24),
        ("16 mib", 2**24),
        ("16MB", 16_000_000),
        ("1.5KiB", 1536),
        (" 2 kB ", 2000),
        ("3T", 3 * 2**40),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_byte_counts_that_people_write(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "-1", "+1", "1e6", "1_000", "1.", ".5M", "1 PiB", "٣"])
def test_what_is_no_byte_count(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_bytes(text)


def test_a_fraction_of_a_byte_is_refused() -> None:
    for text in ("1.5", "0.1KiB", "0.0001K"):
        with pytest.raises(ValueError, match="not a whole number of bytes"):
            parse_bytes(text)


@given(st.integers(0, 2**100), st.sampled_from(["", "B", "KiB", "k", "MB", "gib", "T"]))
def test_every_whole_number_is_read_exactly(count: int, unit: str) -> None:
    assert parse_bytes(f"{count}{unit}") == count * parse_bytes(f"1{unit}")


@given(st.text() | st.from_regex(r"\A[0-9]{1,400}(\.[0-9]{1,400})?[kMGT]?(i?B)?\Z"))
@example("9" * 400)
@example("9" * 5000)
@example("1." + "9" * 400 + "T")
def test_any_text_is_a_byte_count_or_a_value_error(text: str) -> None:
    try:
        count = parse_bytes(text)
    except ValueError:
        return
    assert count >= 0


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1000 * 1024, "1000 KiB"),
        (1023 * MIB, "1023 MiB"),
        (1024 * MIB - 4096, "1.00 GiB"),
        (1024 * 1024 - 1, "1.00 MiB"),
        (2**40 - 1, "1.00 TiB"),
        (1536 * MIB, "1.50 GiB"),
        (16 * MIB, "16.0 MiB"),
        (128 * 1024, "128 KiB"),
        (5 * 2**40, "5.00 TiB"),
    ],
)
def test_byte_counts_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


@given(st.integers(0, 2**52))
def test_a_formatted_count_is_right_to_three_digits(count: int) -> None:
    number, unit = format_bytes(count).split(" ")
    assert re.fullmatch(r"[0-9,]+(\.[0-9]+)?", number)
    shown = float(number.replace(",", "")) * parse_bytes("1" + unit)
    assert abs(shown - count) <= 0.005 * count


# With those that benchmarks/bench/units_test.cpp has.
@pytest.mark.parametrize(
    ("bytes_per_second", "text"),
    [
        (0, "0 MB/s"),
        (-1, "0 MB/s"),
        (4_000, "0.00 MB/s"),
        (34_000, "0.03 MB/s"),
        (450_000, "0.45 MB/s"),
        (996_000, "1.0 MB/s"),
        (5_200_000, "5.2 MB/s"),
        (9_840_000, "9.8 MB/s"),
        (9_949_000, "9.9 MB/s"),
        (9_960_000, "10 MB/s"),
        (309_400_000, "309 MB/s"),
        (999_600_000, "1,000 MB/s"),
        (1_250_000_000, "1,250 MB/s"),
        (12_345_600_000, "12,346 MB/s"),
    ],
)
def test_rates_for_people(bytes_per_second: float, text: str) -> None:
    assert format_rate(bytes_per_second) == text


# ---- the report ----


def error_of(path: str, offset: int = 0) -> OSError:
    error = OSError(errno.EIO, "Input/output error", path)
    error.operation, error.offset = "pread", offset  # type: ignore[attr-defined]
    return error


@pytest.fixture
def report(tmp_path: Any) -> Report:
    (tmp_path / "empty").touch()
    return prefetch_files(tmp_path / "empty").report()


def test_a_complete_report_has_no_reason_to_complain(report: Report) -> None:
    assert report.complete
    assert report.incomplete_reason() is None
    assert report.bytes_per_second == 0


def test_what_is_missing_is_said(report: Report) -> None:
    def reason(**changes: Any) -> str | None:
        changed = dataclasses.replace(report, **changes)
        assert not changed.complete
        return changed.incomplete_reason()

    assert reason(done=False) == "still running"
    assert reason(left_out_bytes=2048, cancelled=True) == "cancelled; 2.00 KiB left out"
    failed = {"errors": (error_of("a", 4096),), "error_count": 3, "failed_bytes": 7}
    assert reason(**failed) == "pread 'a' at offset 4096: Input/output error (and 2 more)"


def test_the_text_is_one_line_with_what_there_is_to_say(report: Report) -> None:
    assert "failed" not in report.text()
    changed = dataclasses.replace(
        report,
        read_bytes=3 * MIB,
        resident_bytes=2 * MIB,
        failed_bytes=1,
        left_out_bytes=2,
        waited_seconds=1.5,
        threads=1,
        seconds=2.0,
        local_rank=1,
        local_size=4,
        topology_source="LOCAL_RANK",
    )
    for part in (
        "3.00 MiB read in 2.00 s (1.6 MB/s)",
        "2.00 MiB already resident",
        "1 B failed",
        "2 B left out",
        "consumer waited 1.50 s",
        "local rank 1 of 4 (LOCAL_RANK), 1 thread,",
    ):
        assert part in changed.text()
    assert "\n" not in changed.text()


def test_what_did_not_happen_is_not_in_the_text(report: Report) -> None:
    beside = "; local rank 0 of 1 (default), 0 threads, 0.00 s of processor time"
    changed = dataclasses.replace(report, seconds=0.0, cpu_seconds=0.0)

    def text(**changes: Any) -> str:
        return dataclasses.replace(changed, **changes).text()

    assert text() == "nothing read in 0.00 s" + beside
    assert text(resident_bytes=MIB) == "1.00 MiB already resident" + beside
    assert text(shared_bytes=MIB) == "1.00 MiB brought in by others" + beside
    assert text(read_bytes=MIB, seconds=1.0).startswith("1.00 MiB read in 1.00 s (1.0 MB/s); l")


@pytest.mark.parametrize(
    ("strategy", "method"),
    [
        ("populate", "populate in windows of 4.00 MiB,"),
        ("fadvise", "fadvise in steps of 128 KiB (measured),"),
        ("readahead", "readahead in steps of 128 KiB (measured),"),
        ("pread", "0 threads, pread,"),
    ],
)
def test_each_strategy_is_told_with_its_own_unit(
    report: Report, strategy: str, method: str
) -> None:
    changed = dataclasses.replace(
        report, read_bytes=1, strategy_used=strategy, step_bytes=128 * 1024, step_source="measured"
    )
    assert method in changed.text()
    assert method not in dataclasses.replace(changed, read_bytes=0).text()
    if strategy == "populate":
        assert method in (REPOSITORY / "docs" / "figures.md").read_text()


def test_the_report_survives_json_whatever_the_path(report: Report) -> None:
    error = error_of(os.fsdecode(b"/models/\xff\n.safetensors"), 8192)
    changed = dataclasses.replace(report, errors=(error,), error_count=1)
    document = json.loads(json.dumps(changed.to_dict(), allow_nan=False))
    assert document["errors"] == [
        {
            "errno": errno.EIO,
            "message": "Input/output error",
            "operation": "pread",
            "path": "/models/\udcff\n.safetensors",
            "offset": 8192,
        }
    ]
    assert not document["complete"]
    fields = {field.name for field in dataclasses.fields(Report)}
    assert set(document) == fields | {"bytes_per_second", "complete"}
    assert describe_error(error).isprintable()
