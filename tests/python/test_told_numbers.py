"""Every number in a docstring of the package is that of its constant, or is told here not to have
one: a sentence that has a new number fails until it is told where that comes from.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fractions import Fraction

import pytest
from conftest import REPOSITORY

from shardahead import _core
from shardahead.checkpoint.safetensors_header import PREFIX_BYTES
from shardahead.checkpoint.shard_index import MAX_INDEX_TENSORS
from shardahead.command import cli
from shardahead.command.doctor import DEFAULT_READ_BYTES
from shardahead.command.measure import STREAMS
from shardahead.prefetch.beside_loader import MAPPED_SHARE
from shardahead.units import parse_bytes
from shardahead.weights.iterators import MAX_WORKERS
from shardahead.weights.shard_reading import AHEAD_SHARE

Numbers = tuple[Fraction, ...]

CSRC = REPOSITORY / "csrc"
_UNIT = "KiB|MiB|GiB|us|ms|s|bytes|blocks|threads"
_QUANTITY = rf"[0-9][0-9.,]*(?: (?:{_UNIT}))?"
WORDS = {
    "half": Fraction(1, 2),
    "quarter": Fraction(1, 4),
    "eighth": Fraction(1, 8),
    "sixteenth": Fraction(1, 16),
    "twice a second": Fraction(1, 2),
    "million": Fraction(10**6),
}
PHRASE = re.compile(
    rf"\b(?:{_QUANTITY} to {_QUANTITY}|{_QUANTITY} by default|[0-9][0-9.,]* (?:{_UNIT})"
    rf"|{'|'.join(WORDS)})\b"
)


# ---- the constants ----


def core(name: str) -> Fraction:
    """The core's constant of this name, in bytes or seconds."""
    found = set()
    for path in (*CSRC.rglob("*.h"), *CSRC.rglob("*.cpp")):
        for text in re.findall(rf"\b{name} = ([^;]+);", path.read_text()):
            found.add(evaluated(text))
    (value,) = found
    return value


def evaluated(text: str) -> Fraction:
    text = re.sub(r"std::chrono::milliseconds\(([0-9']+)\)", r"Fraction(\1, 1000)", text)
    text = re.sub(r"std::chrono::seconds\(([0-9']+)\)", r"Fraction(\1)", text)
    text = re.sub(r"std::uint\d+_t\{([0-9']+)\}", r"\1", text)
    text = re.sub(r"\b([0-9]+)U\b", r"\1", text).replace("'", "")
    for name in re.findall(r"\bk[A-Z]\w*", text):
        text = re.sub(rf"\b{name}\b", f"Fraction({str(core(name))!r})", text)
    return Fraction(eval(text, {"Fraction": Fraction}))


def source_of(name: str, pattern: str) -> Numbers:
    """The numbers that `pattern` finds in a file of the core."""
    (path,) = CSRC.rglob(name)
    (match,) = re.findall(pattern, path.read_text())
    return tuple(Fraction(text) for text in ([match] if isinstance(match, str) else match))


def whole(*numbers: int | float) -> Numbers:
    return tuple(Fraction(number) for number in numbers)


BLOCK = whole(_core.MIN_BLOCK_BYTES, _core.MAX_BLOCK_BYTES)
THREADS = whole(1, _core.MAX_THREADS)
(FIRST_BLOCKS,) = source_of("inflight.h", r"set_bytes : (\d+) \* least_bytes_")
_eighth, _least_mib, _half = source_of(
    "memory_budget.cpp", r"max\(free_bytes / (\d+), (\d+) \* kMiB\), free_bytes / (\d+)\)"
)
RESERVE = (1 / _eighth, _least_mib * 2**20, 1 / _half)

#: By the object whose docstring has it, and the phrase: where it comes from, each source alike.
TOLD: dict[tuple[str, str], list[Numbers]] = {
    ("Options", "1 to 256"): [THREADS],
    ("Options", "4 by default"): [whole(_core.DEFAULT_THREADS)],
    ("Options", "4 KiB to 1 GiB"): [BLOCK],
    ("Options", "16 MiB by default"): [whole(_core.DEFAULT_BLOCK_BYTES)],
    ("prefetch_files", "1 to 256"): [THREADS],
    ("prefetch_files", "4 by default"): [whole(_core.DEFAULT_THREADS)],
    ("prefetch_files", "4 KiB to 1 GiB"): [BLOCK],
    ("prefetch_files", "16 MiB by default"): [whole(_core.DEFAULT_BLOCK_BYTES)],
    ("prefetch_files", "4 blocks"): [(FIRST_BLOCKS,)],
    ("prefetch_files", "64 MiB"): [
        (core("kMaxStripedBlockBytes"),),
        (FIRST_BLOCKS * core("kMinInflightBytes"),),
    ],
    ("prefetch_files", "quarter"): [(1 / core("kShareOfBudget"),)],
    ("prefetch_files", "twice a second"): [(core("kBetweenMemoryLooks"),)],
    ("prefetching", "sixteenth"): [(1 / core("kSmallShareOfBudget"),)],
    ("prefetching", "half"): [(Fraction(1, MAPPED_SHARE),)],
    ("consumed", "2.5 s"): [(core("kPatience"),)],
    ("meet", "0.5 s"): [(core("kAbsentPatience"),)],
    ("meet", "2 s"): [(core("kOpeningPatience"),)],
    ("keeps_pages", "10 s"): [(core("kConsumerTrialPatience"),)],
    ("safetensors_weights_iterator", "quarter"): [(1 / core("kShareOfBudget"),)],
    ("safetensors_weights_iterator", "128 MiB by default"): [whole(_core.DEFAULT_AHEAD_BYTES)],
    ("buffered_multi_thread_safetensors_weights_iterator", "1 to 256"): [whole(1, MAX_WORKERS)],
    ("pt_weights_iterator", "sixteenth"): [(1 / core("kSmallShareOfBudget"),)],
    ("ahead_bytes", "quarter"): [(Fraction(1, AHEAD_SHARE),)],
    ("MemoryBudget", "eighth"): [(RESERVE[0],)],
    ("MemoryBudget", "256 MiB"): [(RESERVE[1],)],
    ("MemoryBudget", "half"): [(RESERVE[2],)],
    ("Measurement", "4 threads"): [whole(STREAMS)],
    ("file_kind", "512 bytes"): [whole(PREFIX_BYTES)],
    ("Report", "64 KiB"): [whole(_core.TOUCHED_GRAIN_BYTES)],
    ("StoredTensor", "64 KiB"): [whole(_core.SHORT_GAP_BYTES)],
}
#: Those that come from no constant.
FREE = {
    ("format_bytes", "1.50 GiB"): "an example",
    ("format_seconds", "5 s"): "an example",
    ("_common_ends", "0.1 ms"): "measured",
    ("neighbours", "10 to 20 us"): "measured",
    ("profile_file.py", "half"): "no number",
    ("resolve_checkpoint", "million"): "about MAX_INDEX_TENSORS",
}


def numbers_of(phrase: str) -> Numbers:
    if phrase in WORDS:
        return (WORDS[phrase],)
    return tuple(_number(part) for part in phrase.removesuffix(" by default").split(" to "))


def _number(text: str) -> Fraction:
    number, _, unit = text.partition(" ")
    if unit in ("KiB", "MiB", "GiB"):
        return Fraction(parse_bytes(text))
    return Fraction(number.replace(",", "")) / {"ms": 1000, "us": 10**6}.get(unit, 1)


def found() -> Iterator[tuple[str, str]]:
    for path in sorted((REPOSITORY / "python" / "shardahead").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                for phrase in PHRASE.findall(text):
                    yield getattr(node, "name", path.name), phrase


def test_every_number_in_a_docstring_is_told_here() -> None:
    assert {*TOLD, *FREE} == set(found())


@pytest.mark.parametrize("where", TOLD, ids=" - ".join)
def test_it_is_that_of_its_constant(where: tuple[str, str]) -> None:
    assert [numbers_of(where[1])] * len(TOLD[where]) == TOLD[where]


def test_about_a_million() -> None:
    assert round(MAX_INDEX_TENSORS, -5) == 10**6


def test_the_command_tells_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        "warm": [
            f"worker threads of this process (default: {_core.DEFAULT_THREADS})",
            f"e.g. {_core.DEFAULT_BLOCK_BYTES // 2**20}MiB (the default)",
        ],
        "doctor": [f"(default: {DEFAULT_READ_BYTES // 2**20}MiB)"],
    }
    for command, words in told.items():
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert [word for word in words if word not in text] == []
