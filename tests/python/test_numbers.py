"""Numbers as arguments: what stands for a whole number is taken everywhere, the rest is refused by
name and value. Where numbers are documented, they are those that are in force.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, REPOSITORY, write_file

import shardahead
from shardahead import PrefetchHandle, _core, prefetch_files
from shardahead.command import cli
from shardahead.command.doctor import DEFAULT_READ_BYTES, examine
from shardahead.node.topology import local_topology
from shardahead.prefetch.consumer import PrefetchConsumer
from shardahead.prefetch.options import DEFAULT_BOARD_FOLDER, DEFAULT_PARTITION, Options
from shardahead.units import parse_bytes
from shardahead.weights.iterators import MAX_WORKERS, check_max_workers


class Index:
    """Stands for a number, as numpy's integers do."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


class BadIndex:
    def __index__(self) -> int:
        raise RuntimeError("of its own")

    def __repr__(self) -> str:
        return "BadIndex()"


def option(name: str) -> Callable[[Any], object]:
    return lambda value: Options(**{name: value})


TAKERS: dict[str, Callable[[Any], object]] = {
    "threads": option("threads"),
    "block_size": option("block_size"),
    "window_bytes": option("window_bytes"),
    "inflight_bytes": option("inflight_bytes"),
    "local_rank": lambda value: local_topology(local_rank=value, local_size=8192),
    "local_size": lambda value: local_topology(local_rank=0, local_size=value),
    "max_workers": check_max_workers,
}
GOOD = {"threads": 4, "max_workers": 4}  # of the others 4096
SIZES = ("block_size", "window_bytes", "inflight_bytes")  # also as text: test_options.py
WRONG = [True, 4096.0, b"4", float("nan"), Decimal(4), [4], BadIndex(), object]


@pytest.mark.parametrize("name", TAKERS)
def test_what_stands_for_a_whole_number_is_taken(name: str) -> None:
    number = GOOD.get(name, 4096)
    assert TAKERS[name](Index(number)) == TAKERS[name](number)


@pytest.mark.parametrize("name", TAKERS)
def test_numbers_of_numpy_and_torch(name: str) -> None:
    numpy, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    number = GOOD.get(name, 4096)
    for kind in (numpy.int64, numpy.uint16, numpy.array, torch.tensor):
        assert TAKERS[name](kind(number)) == TAKERS[name](number)
    for value in (numpy.float64(4), numpy.bool_(True), torch.tensor(4.0), torch.tensor(True)):
        with pytest.raises(TypeError, match=f"^{name} must be "):
            TAKERS[name](value)


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_none_is_refused_by_name(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be .*not {re.escape(repr(wrong))}$"):
        TAKERS[name](wrong)


@pytest.mark.parametrize("name", sorted(TAKERS.keys() - set(SIZES)))
def test_a_count_is_no_text(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be .*not '4'$"):
        TAKERS[name]("4")


def test_a_long_value_is_cut() -> None:
    with pytest.raises(
        TypeError, match=r"^threads must be a whole number, not b'x+\.\.\.$"
    ) as caught:
        Options(threads=b"x" * MIB)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


def test_spans(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    with prefetch_files(path, spans={path: [(Index(0), Index(4096))]}) as handle:  # type: ignore[list-item]
        handle.wait()
    assert handle.report().planned_bytes == 4096
    for wrong, error, message in [
        ((0.0, 1), TypeError, "offset must be a whole number, not 0.0"),
        ((0, None), TypeError, "length must be a whole number, not None"),
        (("0", 1), TypeError, "offset must be a whole number, not '0'"),
        ((0, True), TypeError, "length must be a whole number, not True"),
        ((0,), ValueError, r"not an \(offset, length\): \(0,\)"),
        (7, ValueError, r"not an \(offset, length\): 7"),
        ((-1, 1), ValueError, r"not an \(offset, length\): \(-1, 1\)"),
    ]:
        with pytest.raises(error, match=re.escape(f"spans of {str(path)!r}: ") + message):
            prefetch_files(path, spans={path: [wrong]})  # type: ignore[list-item]


def test_methods_of_a_handle(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", MIB)
    with prefetch_files(path, consumer=True) as handle:
        handle.consumed(Index(0), Index(4096), Index(8192), Index(0))  # type: ignore[arg-type]
        for arguments, name in [
            ((0.0, 1), "file"),
            ((0, "1"), "offset"),
            ((0, 1, True), "needed_offset"),
            ((0, 1, None, 1.5), "held_from_file"),
        ]:
            with pytest.raises(TypeError, match=f"^{name} must be a whole number, not "):
                handle.consumed(*arguments)  # type: ignore[arg-type]
        for timeout in ("1", b"1", True, [1]):
            with pytest.raises(TypeError, match=r"^timeout must be a number of seconds"):
                handle.wait(timeout)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^timeout must be a number of seconds.*not nan$"):
            handle.wait(float("nan"))
        handle.wait(Decimal(60))  # type: ignore[arg-type]


def test_what_doctor_may_read(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", 10)
    examine(str(path), Index(0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^read_bytes must be a whole number, not 1\.5$"):
        examine(str(path), 1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["warm", "--threads", "abc"], "--threads: not a whole number: 'abc' (1 to 256)"),
        (["warm", "--threads", "0"], "--threads: must be between 1 and 256, not 0"),
        (["warm", "--threads", "4MiB"], "--threads: not a whole number: '4MiB' (1 to 256)"),
        (["warm", "--threads=-1"], "--threads: not a whole number: '-1' (1 to 256)"),
        (
            ["warm", "--block-size", "1"],
            "--block-size: must be between 4.00 KiB and 1.00 GiB, not 1",
        ),
        (["warm", "--inflight", "many"], "--inflight: not a number of bytes: 'many'"),
        (["plan", "--local-rank", "1.0"], "--local-rank: not a whole number: '1.0'"),
        (["plan", "--local-size", "0"], "--local-size: must be between 1 and "),
        (["doctor", "--read-bytes", "-1"], "--read-bytes: not a number of bytes: '-1'"),
        (["doctor", "--read-bytes", "9E"], "--read-bytes: not a number of bytes: '9E'"),
    ],
)
def test_an_argument_of_the_command_is_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "/missing"])
    assert left.value.code == 2
    assert f"argument {message}" in capsys.readouterr().err


# ---- numbers that are documented ----

SETTINGS = (REPOSITORY / "docs" / "settings.md").read_text()


def row_of(argument: str) -> list[str]:
    """default and meaning"""
    row = rf"^\| `{argument}`[^|]*\|[^|]*\|[^|]*\|([^|]*)\|[^|]*\|$(.*?)^##"
    (found,) = re.findall(row, SETTINGS, re.MULTILINE | re.DOTALL)
    return [part.strip() for part in found]


def test_the_settings_page_tells_the_defaults_and_ranges() -> None:
    default, meaning = row_of("threads")
    assert int(default) == _core.DEFAULT_THREADS
    assert f"1 to {_core.MAX_THREADS}" in meaning
    default, meaning = row_of("block_size")
    assert parse_bytes(default) == _core.DEFAULT_BLOCK_BYTES
    least, most = re.findall(r"(\d+ KiB) to (\d+ GiB)", meaning)[0]
    limits = (_core.MIN_BLOCK_BYTES, _core.MAX_BLOCK_BYTES)
    assert (parse_bytes(least), parse_bytes(most)) == limits
    assert row_of("strategy")[0] == "`auto`"
    assert row_of("partition")[0] == f"`{DEFAULT_PARTITION}`"
    assert f"| `{DEFAULT_BOARD_FOLDER}` |" in SETTINGS
    assert row_of("inflight_bytes")[0].startswith("0: found by measuring")
    assert row_of("mode")[0] == "`auto`"
    (ahead,) = re.findall(r"\((\d+ MiB) where that is not given", row_of("mode")[1])
    assert parse_bytes(ahead) == _core.DEFAULT_AHEAD_BYTES


@pytest.mark.parametrize(
    ("function", "argument", "told"),
    [
        (
            prefetch_files,
            "threads",
            f"1 to {_core.MAX_THREADS}; {_core.DEFAULT_THREADS} by default",
        ),
        (prefetch_files, "block_size", "4 KiB to 1 GiB; 16 MiB by default"),
        (prefetch_files, "window_bytes", "or a quarter of it with a consumer"),
        (shardahead.safetensors_weights_iterator, "window_bytes", "else a quarter of it"),
        (shardahead.safetensors_weights_iterator, "mode", "128 MiB by default"),
    ],
)
def test_docstrings_tell_the_same(function: Any, argument: str, told: str) -> None:
    text = inspect.getdoc(function)
    assert text is not None
    (entry,) = re.findall(rf"^(?:\w+, )*{argument}(?:, \w+)*: .*?(?=^\w|\Z)", text, re.M | re.S)
    assert told in " ".join(entry.split())


@pytest.mark.parametrize(("consumer", "share"), [(False, 1), (True, 4)])
def test_the_window_is_the_share_of_the_budget_that_is_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, consumer: bool, share: int
) -> None:
    assert "that budget, a quarter of it ahead of a consumer" in row_of("window_bytes")[0]
    budget_bytes = 8 * MIB
    monkeypatch.setenv("SHARDAHEAD_MEMORY_BUDGET_BYTES", str(budget_bytes))
    path = write_file(tmp_path / "a", 12 * MIB)
    with prefetch_files(path, block_size=64 * 1024, consumer=consumer) as handle:
        report = handle.report()
    assert (report.window_bytes, report.window_source) == (budget_bytes // share, "memory")


def test_other_numbers() -> None:
    docs = inspect.getdoc(shardahead.buffered_multi_thread_safetensors_weights_iterator)
    assert docs is not None
    assert f"1 to {MAX_WORKERS} of them" in docs
    assert parse_bytes("256MiB") == DEFAULT_READ_BYTES


# (file of the core, its constant and value, where it is told: a page or an object, and the words)
HALF_A_SECOND = "kBetweenMemoryLooks = std::chrono::milliseconds(500)"
TOLD: list[tuple[str, str, Any, str]] = [
    ("window.cpp", "kShareOfBudget = 4", "settings.md", "a quarter of it ahead of a consumer"),
    ("window.cpp", "kShareOfBudget = 4", "settings.md", "by more than a quarter of the"),
    ("window.cpp", "kSmallShareOfBudget = 16", "settings.md", "a sixteenth within"),
    ("window.h", "kPatience = std::chrono::milliseconds(2500)", "settings.md", "still for 2.5 s"),
    ("window.h", "chrono::milliseconds(2500)", PrefetchHandle.consumed, "2.5 s"),
    (
        "patience.h",
        "kAbsentPatience = std::chrono::milliseconds(500)",
        PrefetchConsumer.meet,
        "0.5 s",
    ),
    ("patience.h", "kOpeningPatience = std::chrono::seconds(2)", PrefetchConsumer.meet, "2 s for"),
    (
        "engine.cpp",
        "kConsumerTrialPatience = std::chrono::seconds(10)",
        PrefetchConsumer.keeps_pages,
        "for 10 s at most",
    ),
    ("ahead.cpp", HALF_A_SECOND, "settings.md", "twice a second"),
    ("ahead.cpp", HALF_A_SECOND, prefetch_files, "twice a second"),
    ("file_io.h", "kPopulateBytes = 2 * kHugePageBytes", "settings.md", "for each 4 MiB"),
    ("stripe.h", "kMaxStripedBlockBytes = 64 * kMiB", prefetch_files, "up to 64 MiB"),
    ("stripe.h", "kMaxStripedBlockBytes = 64 * kMiB", "settings.md", "is 64 MiB at most"),
    ("inflight.h", "kGain = 1.05", "settings.md", "doubles while that brings at least 5 %"),
    ("inflight.h", "kGainWithLess = 1.2", "settings.md", "at least 20 % more throughput"),
]


@pytest.mark.parametrize(("file", "constant", "told", "words"), TOLD)
def test_constants_of_the_core_are_told_as_they_are(
    file: str, constant: str, told: Any, words: str
) -> None:
    (source,) = (REPOSITORY / "csrc").rglob(file)
    assert constant in source.read_text()
    page = REPOSITORY / "docs" / str(told)
    text = page.read_text() if isinstance(told, str) else inspect.getdoc(told)
    assert text is not None
    assert words in " ".join(text.split())
