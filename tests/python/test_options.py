"""Options: one value for every entry, checked when it is made; what counts before what; and the
keywords of the entries, which are held to its fields.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import os
import pickle
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, thread_ids, write_file

import shardahead
from shardahead import Options, prefetch_files, prefetching
from shardahead.environment import VARIABLES
from shardahead.integrations.tensorrt_llm import weight_loader
from shardahead.prefetch.options import (
    DEFAULT_BOARD_FOLDER,
    OPTION_NAMES,
    resolve_mode,
    resolve_options,
)

# (field, a value, another one and as what it is kept, what a variable says and as what it is kept)
FIELDS: dict[str, tuple[Any, Any, Any, str, Any]] = {
    "threads": (3, 5, 5, "7", 7),
    "block_size": (4096, "1MiB", MIB, "2MiB", 2 * MIB),
    "strategy": ("pread", "fadvise", "fadvise", " readahead ", "readahead"),
    "partition": ("file", "block", "block", "dynamic", "dynamic"),
    "window_bytes": (0, "1.5KiB", 1536, "1G", 2**30),
    "inflight_bytes": (8 * MIB, "16 MiB", 16 * MIB, "0", 0),
    "mode": ("mmap", "pread", "pread", "auto", "auto"),
    "memory_budget_bytes": (2**40, "64GiB", 2**36, "1T", 2**40),
    "board_folder": ("/tmp", Path("/run/x"), "/run/x", "/dev/shm/y", "/dev/shm/y"),
    "rate_limit": (10**9, "200MB/s", 200_000_000, "1G", 2**30),
    "report": ("/tmp", Path("/run/x"), "/run/x", "/dev/shm/y", "/dev/shm/y"),
    "learn": ("/tmp", Path("/run/x"), "/run/x", "/dev/shm/y", "/dev/shm/y"),
    "learn_key": ("a", "prefill", "prefill", "decode", "decode"),
    "replica": ("/tmp", Path("/run/x"), "/run/x", "/dev/shm/y", "/dev/shm/y"),
}
SIZES = ("block_size", "window_bytes", "inflight_bytes", "memory_budget_bytes")
OF_THE_NODE = {"memory_budget_bytes", "board_folder", "rate_limit", "report"}  # no keywords
OF_LOADERS = {"learn", "learn_key"}  # keywords where it is seen what is touched
OF_ITERATORS = {"mode", "replica"}
PATHS = {"board_folder", "report", "replica"}
ITERATORS: list[Callable[..., Any]] = [
    shardahead.safetensors_weights_iterator,
    shardahead.buffered_multi_thread_safetensors_weights_iterator,
    shardahead.pt_weights_iterator,
]
ENTRIES: list[Callable[..., Any]] = [prefetch_files, prefetching, weight_loader, *ITERATORS]


def variable_of(field: str) -> str:
    return f"SHARDAHEAD_{field.upper()}" + ("_FOLDER" if field == "replica" else "")


# ---- the value ----


def test_every_field_is_tested_and_has_its_variable() -> None:
    assert tuple(FIELDS) == OPTION_NAMES
    assert {variable_of(field) for field in FIELDS} <= set(VARIABLES)


@pytest.mark.parametrize("field", FIELDS)
def test_it_is_a_value(field: str) -> None:
    one, other, kept, _, _ = FIELDS[field]
    options = Options(**{field: other})
    assert getattr(options, field) == kept
    assert options == Options(**{field: kept})
    assert hash(options) == hash(Options(**{field: kept}))
    assert options not in {Options(), Options(**{field: one})}
    assert pickle.loads(pickle.dumps(options)) == options
    assert dataclasses.replace(options, **{field: one}) == Options(**{field: one})
    assert dataclasses.replace(options, **{field: None}) == Options()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(options, field, one)


def test_a_choice_is_kept_as_text() -> None:
    class Strategy(str, enum.Enum):
        PREAD = "pread"

    options = Options(strategy=Strategy.PREAD)  # type: ignore[arg-type]
    assert type(options.strategy) is str
    assert repr(options) == repr(Options(strategy="pread"))


def test_a_message_is_short_whatever_the_value_is() -> None:
    for size in SIZES:
        for text in ("9" * 10**6, "x" * 10**6, "1." + "1" * 10**6, "1." + "1" * 90):
            with pytest.raises(ValueError, match=size) as caught:
                Options(**{size: text})  # type: ignore[arg-type]
            assert len(str(caught.value)) < 500
    with pytest.raises(ValueError, match="SHARDAHEAD_BLOCK_SIZE_MB: not a number of MiB") as caught:
        Options.from_environment({"SHARDAHEAD_BLOCK_SIZE_MB": "9" * 10**6})
    assert len(str(caught.value)) < 500


def test_nothing_is_given_by_itself() -> None:
    assert set(dataclasses.asdict(Options()).values()) == {None}
    with pytest.raises(TypeError, match="positional"):
        Options(4)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'thread'"):
        Options(thread=4)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("field", "wrong", "error", "message"),
    [
        ("threads", 0, ValueError, "threads must be between 1 and 256, not 0"),
        ("threads", "4", TypeError, "threads must be a whole number, not '4'"),
        ("block_size", 1, ValueError, "block_size must be between 4096 and 1073741824, not 1"),
        ("block_size", "1KiB", ValueError, "between 4096 and 1073741824, not '1KiB'"),
        ("block_size", "16MoB", ValueError, "block_size: not a number of bytes: '16MoB'"),
        ("block_size", "0.1KiB", ValueError, "block_size: not a whole number of bytes: '0.1KiB'"),
        ("strategy", "PREAD", ValueError, "strategy must be one of auto, populate, "),
        ("partition", 3, ValueError, "partition must be one of dynamic, block, file"),
        ("mode", "", ValueError, "mode must be one of auto, mmap, pread, not ''"),
        *((s, "9" * 5000, ValueError, f"{s}: not a number of bytes: '999") for s in SIZES),
        ("board_folder", 3, TypeError, "board_folder must be a path, not 3"),
        ("board_folder", "", ValueError, "board_folder must be a path, not ''"),
        ("board_folder", "a\0b", ValueError, r"board_folder must be a path, not 'a\x00b'"),
        *((size, True, TypeError, f"{size} must be a whole number, not True") for size in SIZES),
        *((size, 4096.0, TypeError, f"{size} must be a whole number, not 4096") for size in SIZES),
        *((size, "-1", ValueError, f"{size}: not a number of bytes: '-1'") for size in SIZES),
        *((size, "9e9T", ValueError, f"{size}: not a number of bytes: '9e9T'") for size in SIZES),
        *((size, "8388608T", ValueError, f"{size} must be between ") for size in SIZES),
    ],
)
def test_what_is_wrong_is_named(
    field: str, wrong: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        Options(**{field: wrong})
    assert message in str(caught.value)
    with pytest.raises(error) as again:
        dataclasses.replace(Options(), **{field: wrong})
    assert str(again.value) == str(caught.value)


# ---- what counts before what ----


@pytest.mark.parametrize("field", FIELDS)
def test_the_environment_says_a_field(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, _, text, kept = FIELDS[field]
    expected = Options(**{field: kept})
    assert Options.from_environment({variable_of(field): text}) == expected
    assert Options.from_environment({variable_of(field): ""}) == Options()
    assert Options.from_environment() == Options()
    monkeypatch.setenv(variable_of(field), text)
    assert Options.from_environment() == expected


@pytest.mark.parametrize("field", sorted(FIELDS.keys() - PATHS - OF_LOADERS))
def test_the_environment_is_checked_by_the_name_of_its_variable(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{variable_of(field)}\\b.*'nonsense'"):
        Options.from_environment({variable_of(field): "nonsense"})


@pytest.mark.parametrize("field", FIELDS)
def test_options_count_before_the_environment(field: str) -> None:
    names = {"block_size": "block_bytes", "rate_limit": "rate_limit_bytes_per_s"}
    in_force = names.get(field, field)
    _, other, kept, text, from_text = FIELDS[field]

    def resolved(options: Options | None, environ: dict[str, str]) -> Any:
        if field == "mode":
            return resolve_mode(options, environ=environ)
        return getattr(resolve_options(options, environ=environ), in_force)

    environ = {variable_of(field): text}
    asked = Options(**{field: other})
    assert resolved(asked, environ) == resolved(asked, {variable_of(field): "nonsense"}) == kept
    assert resolved(Options(), environ) == resolved(None, environ) == from_text
    assert resolved(Options(), {}) == resolved(None, {})


def test_options_of_the_node(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", 4 * MIB)
    (tmp_path / "board").mkdir()
    options = Options(memory_budget_bytes="1MiB", board_folder=tmp_path / "board")
    with prefetch_files(path, options=options, consumer=True) as handle:
        report = handle.report()
        assert (report.window_bytes, report.window_source) == (MIB // 4, "memory")
        assert os.listdir(tmp_path / "board")
    assert resolve_options(environ={}).board_folder == DEFAULT_BOARD_FOLDER


def test_a_keyword_counts_before_options_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "a", MIB)
    options = Options(threads=3, block_size="64KiB", strategy="pread")
    monkeypatch.setenv("SHARDAHEAD_THREADS", "2")
    monkeypatch.setenv("SHARDAHEAD_PARTITION", "file")
    with prefetch_files(path, options=options, threads=5, block_size="128KiB") as handle:
        report = handle.report()
    assert (report.threads, report.block_bytes) == (5, 128 * 1024)
    assert (report.strategy, report.partition) == ("pread", "file")
    with prefetching(path, options=options, partition="block") as handle:
        report = handle.report()
    assert (report.threads, report.block_bytes, report.partition) == (3, 64 * 1024, "block")
    with prefetch_files(path, block_size="64KiB") as handle:
        assert handle.report().threads == 2


# ---- the entries ----


@pytest.mark.parametrize("entry", ENTRIES)
def test_keywords_are_the_fields(entry: Callable[..., Any]) -> None:
    own = inspect.signature(entry).parameters
    fields = inspect.signature(Options).parameters
    missing = OF_THE_NODE if entry in ITERATORS else OF_THE_NODE | OF_ITERATORS
    if entry in (prefetch_files, weight_loader):
        missing = missing | OF_LOADERS
    assert set(fields) - set(own) == missing
    for name in fields.keys() - missing:
        assert own[name].default is fields[name].default is None
        assert own[name].annotation == fields[name].annotation
    assert own["options"].kind is inspect.Parameter.KEYWORD_ONLY
    assert own["options"].annotation == "Options | None"
    assert typing.get_type_hints(entry)["options"] == Options | None


def test_the_iterators_have_the_same_keywords() -> None:
    one, *others = (dict(inspect.signature(entry).parameters) for entry in ITERATORS)
    for other in others:
        other.pop("max_workers", None)
        assert list(other.values()) == list(one.values())


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"options": {"threads": 4}}, TypeError, "options must be a shardahead.Options, not {"),
        ({"options": Options}, TypeError, "options must be a shardahead.Options, not <class"),
        ({"options": Options(threads=2), "threads": 0}, ValueError, "threads must be between"),
        ({"window_bytes": "a lot"}, ValueError, "window_bytes: not a number of bytes: 'a lot'"),
        ({"inflight_bytes": 1.5}, TypeError, "inflight_bytes must be a whole number, not 1.5"),
    ],
)
def test_every_entry_refuses_what_is_wrong_before_any_thread(
    entry: Callable[..., Any], wrong: dict[str, Any], error: type[Exception], message: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    arguments = [] if entry is weight_loader else [tmp_path / "missing.safetensors"]
    before = thread_ids()
    with pytest.raises(error) as caught:
        entered = entry(*arguments, **wrong)
        with entered:  # a context manager looks at its arguments when it is entered
            pass
    assert message in str(caught.value)
    assert thread_ids() == before


@pytest.mark.parametrize("entry", [prefetch_files, *ITERATORS])
def test_unknown_keywords_fail(entry: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="'thread'"):
        entry("missing", thread=4)
