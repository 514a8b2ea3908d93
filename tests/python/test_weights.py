"""The weight iterators: the right tensors, bit for bit, in order, with and without prefetch.

What is right is what the safetensors library reads by itself. How they end is in
test_weights_ends.py, their memory and their ranks in test_weights_processes.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import weights_support
from conftest import KIB, MIB, make_cold, resident_bytes, run_python, thread_ids
from weights_support import (
    Bits,
    MakeIterator,
    bits,
    buffered,
    one_by_one,
    plainly,
    read,
    save_file,
    zoo,
)

from shardahead import LoadProgress

iterate = weights_support.iterate
shards = weights_support.shards


@pytest.fixture(scope="module")
def expected(shards: list[Path]) -> list[Bits]:
    return plainly(*shards)


@pytest.mark.parametrize("prefetch", [True, False])
def test_the_same_tensors_in_the_same_order(
    shards: list[Path], expected: list[Bits], iterate: MakeIterator, prefetch: bool
) -> None:
    for files in (shards[0].parent, shards[::-1]):
        make_cold(*shards)
        weights = iterate(files, prefetch=prefetch)
        assert (weights.prefetch is not None) == prefetch
        assert read(weights) == expected
        assert list(weights) == []
        if weights.prefetch is not None:
            assert not weights.prefetch.failed
            assert weights.prefetch.errors == ()


def test_an_index_gives_the_order_of_the_shards(tmp_path: Path, iterate: MakeIterator) -> None:
    paths = [tmp_path / name for name in ("b.safetensors", "c.safetensors", "a.safetensors")]
    for number, path in enumerate(paths):
        save_file(zoo(number), path)
    weight_map = {name: path.name for n, path in enumerate(paths) for name in zoo(n)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert read(iterate(tmp_path)) == read(iterate(index)) == plainly(*paths)


def test_tensors_by_offset_whatever_the_header_says_first(tmp_path: Path) -> None:
    header = {
        name: {"dtype": "U8", "shape": [2], "data_offsets": [begin, begin + 2]}
        for name, begin in (("c", 2), ("a", 4), ("b", 0))
    }
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(range(6)))
    assert [name for name, _ in one_by_one(path)] == ["b", "c", "a"]
    assert read(one_by_one(path)) == plainly(path)


def test_disabled_by_the_environment(
    shards: list[Path],
    expected: list[Bits],
    iterate: MakeIterator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    weights = iterate(shards)
    assert weights.prefetch is None
    assert read(weights) == expected
    weights.close()


# ---- names ----


@pytest.mark.parametrize("kind", ["list", "set", "predicate"])
def test_only_the_named_tensors_and_their_bytes(
    shards: list[Path], expected: list[Bits], iterate: MakeIterator, kind: str
) -> None:
    def small(name: str) -> bool:
        return "wide" not in name and "layers.1." not in name

    chosen = [entry[0] for entry in expected if small(entry[0])]
    names: Any = {"list": [*chosen, "unknown"], "set": set(chosen), "predicate": small}[kind]
    make_cold(*shards)
    weights = iterate(shards, names=names)
    assert read(weights) == [entry for entry in expected if small(entry[0])]
    assert weights.prefetch is not None
    report = weights.prefetch.report()
    total = sum(path.stat().st_size for path in shards)
    named = sum(len(entry[3]) for entry in expected if small(entry[0]))
    assert named < report.planned_bytes < named + 16 * KIB < total / 2


def test_no_name_is_no_tensor(shards: list[Path], iterate: MakeIterator) -> None:
    nothing: list[Any] = [[], {"unknown"}, lambda _name: False]
    for names in nothing:
        assert read(iterate(shards, names=names, strict=False)) == []
    assert read(iterate(shards, names=set())) == []


def test_one_string_is_not_a_collection_of_names(shards: list[Path]) -> None:
    with pytest.raises(TypeError, match=r"names must be a collection .*not 'layers'"):
        one_by_one(shards, names="layers")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (3, r"names must be a collection of names or a predicate, not int"),
        (b"layers", r"names must be a collection of names or a predicate, not bytes"),
        (["layers", b"layers"], r"names\[1\] must be a string, not bytes"),
        ([3], r"names\[0\] must be a string, not int"),
        ([["layers"]], r"names\[0\] must be a string, not list"),
    ],
)
def test_names_that_are_none_are_refused(shards: list[Path], names: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        one_by_one(shards, names=names)


# ---- progress, window, dropping ----


def test_progress_is_told_after_each_tensor(
    shards: list[Path], expected: list[Bits], iterate: MakeIterator
) -> None:
    told: list[LoadProgress] = []
    total = sum(len(entry[3]) for entry in expected)
    for i, (name, _) in enumerate(iterate(shards, progress=told.append)):
        assert len(told) == i
        assert name == expected[i][0]
    assert [step.name for step in told] == [entry[0] for entry in expected]
    assert [step.total_bytes for step in told] == [total] * len(expected)
    consumed = [step.consumed_bytes for step in told]
    assert consumed == sorted(consumed)
    assert consumed[-1] == total
    told.clear()
    list(iterate(shards, progress=told.append, names=lambda name: "wide" in name))
    assert told[-1].consumed_bytes == told[-1].total_bytes == 4 * (2 * MIB + 1)


def test_a_window_smaller_than_the_largest_tensor(
    shards: list[Path], expected: list[Bits], iterate: MakeIterator
) -> None:
    make_cold(*shards)
    weights = iterate(shards, window_bytes=64 * KIB, block_size=64 * KIB, threads=2)
    assert read(weights) == expected
    assert weights.prefetch is not None
    assert not weights.prefetch.failed


def test_with_a_window_the_last_shards_stay_cold_until_their_turn(shards: list[Path]) -> None:
    make_cold(*shards)
    weights = one_by_one(shards, window_bytes=256 * KIB, block_size=64 * KIB)
    next(weights)
    assert weights.prefetch is not None
    assert weights.prefetch.progress().done_bytes < 3 * MIB
    assert [resident_bytes(path) for path in shards[-2:]] == [0, 0]


def test_drop_after_leaves_nothing_resident(
    shards: list[Path], expected: list[Bits], iterate: MakeIterator
) -> None:
    make_cold(*shards)
    weights = iterate(shards, drop_after=True)
    found = []
    for name, tensor in weights:
        found.append(bits(name, tensor))
        del tensor  # what is held is mapped, and what is mapped stays
    assert found == expected
    assert [resident_bytes(path) for path in shards] == [0] * len(shards)


def test_drop_after_waits_for_the_last_of_several_ranks(
    shards: list[Path], iterate: MakeIterator
) -> None:
    make_cold(*shards)
    ranks = [iterate(shards, drop_after=True, local_rank=i, local_size=3) for i in range(3)]
    for weights in ranks:
        for _, tensor in weights:
            del tensor  # what is held is mapped, and what is mapped stays
        left = sum(resident_bytes(path) for path in shards)
        assert left == (0 if weights is ranks[-1] else sum(path.stat().st_size for path in shards))


@pytest.mark.parametrize(("partition", "prefetch"), [("dynamic", False), ("block", True)])
def test_drop_after_needs_ranks_that_know_of_each_other(
    shards: list[Path],
    iterate: MakeIterator,
    partition: str,
    prefetch: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHARDAHEAD_PARTITION", partition)
    before = thread_ids()
    with pytest.raises(ValueError, match="drop_after=True with local_size 2"):
        iterate(shards, drop_after=True, local_rank=0, local_size=2, prefetch=prefetch)
    assert thread_ids() == before


# ---- wrong arguments ----


def test_wrong_arguments(shards: list[Path], iterate: MakeIterator) -> None:
    before = thread_ids()
    with pytest.raises(ValueError, match="mode must be one of auto, mmap, pread, not 'magic'"):
        iterate(shards, mode="magic")
    with pytest.raises(ValueError, match=r"threads must be .*not 0"):
        iterate(shards, threads=0)
    with pytest.raises(ValueError, match="files is empty"):
        iterate([])
    with pytest.raises(FileNotFoundError) as caught:
        iterate([*shards, "missing.safetensors"])
    assert caught.value.filename == "missing.safetensors"
    assert thread_ids() == before


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(0, ValueError), (-1, ValueError), (257, ValueError), (True, TypeError), (2.0, TypeError)],
)
def test_wrong_numbers_of_workers(shards: list[Path], wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"max_workers must be .*not {wrong}"):
        buffered(shards, max_workers=wrong)


def test_without_torch_it_says_what_to_install(shards: list[Path]) -> None:
    script = """
import json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import shardahead
shardahead.prefetch_files(sys.argv[2]).wait()
try:
    shardahead.safetensors_weights_iterator(sys.argv[2])
except ImportError as error:
    print(json.dumps(str(error)))
"""
    for module in ("torch", "safetensors"):
        text = run_python(script, module, shards[0].parent)
        assert "pip install torch safetensors numpy" in text
        assert module in text
