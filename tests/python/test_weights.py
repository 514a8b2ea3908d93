"""The weight iterators: the right tensors, bit for bit, with and without prefetch, to any end.

What is right is what the safetensors library reads by itself.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KIB,
    MIB,
    eventually,
    finish,
    is_resident,
    make_cold,
    resident_bytes,
    run_python,
    run_ranks,
    start_python,
    thread_ids,
    write_file,
)

from shardahead import (
    LoadProgress,
    WeightsIterator,
    buffered_multi_thread_safetensors_weights_iterator,
    safetensors_weights_iterator,
)

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402

MakeIterator = Callable[..., WeightsIterator]
Bits = tuple[str, Any, tuple[int, ...], bytes]

one_by_one: MakeIterator = safetensors_weights_iterator
buffered: MakeIterator = buffered_multi_thread_safetensors_weights_iterator
ITERATORS = {
    "one by one": one_by_one,
    "1 worker": partial(buffered, max_workers=1),
    "2 workers": partial(buffered, max_workers=2),
    "8 workers": partial(buffered, max_workers=8),
}


@pytest.fixture(params=ITERATORS.values(), ids=list(ITERATORS))
def iterate(request: pytest.FixtureRequest) -> MakeIterator:
    found: MakeIterator = request.param
    return found


def bits(name: str, tensor: Any) -> Bits:
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return name, tensor.dtype, tuple(tensor.shape), raw


def plainly(*shards: Path) -> list[Bits]:
    """What the safetensors library reads: shards as given, tensors by offset."""
    found = []
    for path in shards:
        with safetensors.safe_open(path, framework="pt") as shard:
            found += [bits(name, shard.get_tensor(name)) for name in shard.offset_keys()]
    return found


def random_tensor(dtype: Any, shape: tuple[int, ...], seed: int) -> Any:
    """Random bytes of this type: also NaNs and infinities."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    count = torch.empty(shape, dtype=dtype).nbytes
    raw = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


def zoo(number: int) -> dict[str, Any]:
    """Every kind of tensor that models hold, with odd sizes, none and one element."""
    kinds = [
        ("up_proj.weight", torch.bfloat16, (129, 257)),
        ("experts.weight", torch.float8_e4m3fn, (61, 1031)),
        ("scale", torch.float32, ()),
        ("positions", torch.int64, (3, 1, 5)),
        ("mask", torch.bool, (7,)),
        ("nothing", torch.float16, (0, 5)),
        ("norm.weight", torch.float64, (1,)),
        ("wide.weight", torch.uint8, (2 * MIB + 1,)),
    ]
    return {
        f"layers.{number}.{name}": random_tensor(dtype, shape, 100 * number + i)
        for i, (name, dtype, shape) in enumerate(kinds)
    }


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five shards without an index: 1, 2, 3, 10, 11 in natural order, one of them empty."""
    folder = tmp_path_factory.mktemp("checkpoint")
    paths = [folder / f"model-{number}.safetensors" for number in (1, 2, 3, 10, 11)]
    for number, path in enumerate(paths):
        save_file({} if number == 2 else zoo(number), path)
    return paths


@pytest.fixture(scope="module")
def expected(shards: list[Path]) -> list[Bits]:
    return plainly(*shards)


def read(weights: WeightsIterator) -> list[Bits]:
    return [bits(name, tensor) for name, tensor in weights]


def ends(before: set[int]) -> None:
    """Waits until no thread is left but those of before."""
    eventually(lambda: thread_ids() <= before, f"threads stay: {threading.enumerate()}")


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
        assert read(iterate(shards, names=names)) == []


def test_one_string_is_not_a_collection_of_names(shards: list[Path]) -> None:
    with pytest.raises(TypeError, match=r"names must be a collection .*not 'layers'"):
        one_by_one(shards, names="layers")


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


# ---- all the ways to end ----


def some(weights: WeightsIterator, count: int = 2) -> list[Bits]:
    return [bits(*next(weights)) for _ in range(count)]


def failing_consumer(weights: Iterator[Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        for i, _ in enumerate(weights):
            _ = 1 / (2 - i)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("window_bytes", [None, 64 * KIB])
def test_closed_or_dropped_early_its_threads_end(
    shards: list[Path], iterate: MakeIterator, started: bool, window_bytes: int | None
) -> None:
    for close in (True, False):
        before = thread_ids()
        weights = iterate(shards, window_bytes=window_bytes, block_size=64 * KIB)
        if started:
            some(weights)
        if close:
            weights.close()
            weights.close()
            assert list(weights) == []
        del weights
        ends(before)


def test_an_exception_in_the_consumer_ends_its_threads(
    shards: list[Path], iterate: MakeIterator
) -> None:
    before = thread_ids()
    failing_consumer(iterate(shards, window_bytes=64 * KIB, block_size=64 * KIB))
    ends(before)


def test_an_exception_in_progress_reaches_the_consumer(
    shards: list[Path], iterate: MakeIterator
) -> None:
    def refuse(_: LoadProgress) -> None:
        raise RuntimeError("enough")

    before = thread_ids()
    with pytest.raises(RuntimeError, match="enough"):
        list(iterate(shards, progress=refuse))
    ends(before)


@pytest.mark.parametrize("prefetch", [True, False])
def test_a_bad_shard_is_an_error_when_its_turn_comes(
    tmp_path: Path, iterate: MakeIterator, prefetch: bool
) -> None:
    good, bad = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_file(zoo(1), good)
    write_file(bad, 100 * KIB)
    before = thread_ids()
    weights = iterate(tmp_path, prefetch=prefetch)
    assert some(weights, len(zoo(1))) == plainly(good)
    with pytest.raises(ValueError, match=r"2\.safetensors'.*not a safetensors file"):
        next(weights)
    assert list(weights) == []
    del weights
    ends(before)


def test_a_held_iterator_does_not_hold_up_the_exit(shards: list[Path]) -> None:
    script = """
import sys, shardahead
make = getattr(shardahead, sys.argv[1])
weights = make(sys.argv[2], window_bytes=65536, block_size=65536)
print(next(weights)[0])
"""
    for make in (one_by_one, buffered):
        name = make.__name__
        done = finish(start_python(script, name, shards[0].parent))
        assert (done.returncode, done.stderr) == (0, "")


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
        assert "pip install 'shardahead[torch]'" in text
        assert module in text


# ---- memory, and ranks ----

CHECKPOINT_BYTES = 64 * MIB
LOAD = """
import json, sys, torch, shardahead
def anonymous():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))
make = getattr(shardahead, sys.argv[2])
list(make(sys.argv[3]))  # what is loaded once stays
before = anonymous()
weights = make(sys.argv[1])
held = list(weights)
total = sum(int(tensor.sum(dtype=torch.int64)) for _, tensor in held)
report = weights.prefetch.report().to_dict()
print(json.dumps({"grown": anonymous() - before, "sum": total, "report": report}))
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    folder = tmp_path / "large"
    folder.mkdir()
    for i in range(2):
        tensors = {
            f"{i}.{j}": random_tensor(torch.uint8, (CHECKPOINT_BYTES // 8,), j) for j in range(4)
        }
        save_file(tensors, folder / f"{i}.safetensors")
    return folder


@pytest.mark.parametrize("make", [one_by_one, buffered])
def test_tensors_are_views_and_not_copies(large: Path, tmp_path: Path, make: MakeIterator) -> None:
    small = tmp_path / "small"
    small.mkdir()
    save_file(zoo(1), small / "a.safetensors")
    name = make.__name__
    found = run_python(LOAD, large, name, small)
    assert found["sum"] > 0
    assert found["grown"] < CHECKPOINT_BYTES // 4


@pytest.mark.parametrize("partition", ["block", "file"])
def test_rank_processes_read_the_same(large: Path, tmp_path: Path, partition: str) -> None:
    files = sorted(large.iterdir())
    make_cold(*files)
    small = tmp_path / "small"
    small.mkdir()
    save_file(zoo(1), small / "a.safetensors")
    ranks = run_ranks(
        LOAD,
        2,
        large,
        "safetensors_weights_iterator",
        small,
        env={"SHARDAHEAD_PARTITION": partition},
    )
    assert ranks[0]["sum"] == ranks[1]["sum"] > 0
    assert [rank["report"]["local_size"] for rank in ranks] == [2, 2]
    planned = [rank["report"]["planned_bytes"] for rank in ranks]
    assert sum(planned) == sum(os.path.getsize(path) for path in files)
    assert all(is_resident(path) for path in files)
