"""What is wrong with `slices=`: said with tensor, shape and part, before any thread starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import messages
from slices_support import WAYS
from weights_support import buffered, one_by_one, save_file

from shardahead import pt_weights_iterator, tensor_ranges
from shardahead.checkpoint.asked_parts import AskedParts, bounds_of
from shardahead.checkpoint.safetensors_header import TensorRange

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")

BAD_PARTS: list[tuple[Any, type[Exception], str]] = [
    ((2, 0, 1), ValueError, "there is no dimension 2"),
    ((-3, 0, 1), ValueError, "there is no dimension -3"),
    ((0, 0, 5), ValueError, "dimension 0 has 4"),
    ((0, -1, 4), ValueError, "dimension 0 has 4"),
    ((0, 3, 2), ValueError, "it begins at 3 and ends at 2"),
    ((slice(0, 5),), ValueError, "dimension 0 has 4"),
    ((slice(-5, None),), ValueError, "dimension 0 has 4"),
    ((slice(None), slice(7, None)), ValueError, "dimension 1 has 6"),
    ((slice(-1, 1),), ValueError, "it begins at 3 and ends at 1"),
    ((slice(0, 4, 2),), ValueError, "a step of 2"),
    ((slice(None, None, -1),), ValueError, "a step of -1"),
    ((slice(1),) * 3, ValueError, "3 slices, 2 dimensions"),
    ((0, True, 2), TypeError, "start of .* must be a whole number, not True"),
    ((0, 0, numpy.bool_(True)), TypeError, "stop of .* must be a whole number"),
    ((0, 1.0, 2), TypeError, "start of .* must be a whole number, not 1.0"),
    (("0", 1, 2), TypeError, "dim of .* must be a whole number, not '0'"),
    ((slice(0, 2.0),), TypeError, "stop of .* must be a whole number"),
    ((slice(False, 2),), TypeError, "start of .* must be a whole number"),
    ((slice(0, 2, True),), TypeError, "step of .* must be a whole number"),
    ((0, 1), TypeError, "a part is"),
    ((0, slice(1), 1), TypeError, "a part is"),
    ([0, 1, 2], TypeError, "a part is"),
    (slice(1), TypeError, "a part is"),
    (3, TypeError, "a part is"),
    ("rows", TypeError, "a part is"),
    ((None, None), TypeError, "a part is"),
]


@pytest.mark.parametrize(("part", "kind", "text"), BAD_PARTS, ids=lambda value: repr(value)[:30])
def test_bad_parts_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Any, kind: type[Exception], text: str
) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.ones(4, 6)}, path)
    monkeypatch.setattr("shardahead._core.Prefetch", None)
    for make in (one_by_one, buffered, tensor_ranges):
        with pytest.raises(kind, match=text) as caught:
            make(path, slices=lambda _name, _shape, _dtype: part)
        assert "tensor 'w' of shape (4, 6)" in str(caught.value)
        assert repr(part) in str(caught.value)
        with pytest.raises(kind, match=text):
            make(path, slices={"w": part})
    torch.save({"w": torch.ones(4, 6)}, tmp_path / "m.pt")
    with pytest.raises(kind, match=text):
        list(pt_weights_iterator(tmp_path / "m.pt", slices={"w": part}, prefetch=False))


def test_what_is_no_part_of_any_tensor_is_known_without_a_file(tmp_path: Path) -> None:
    makes: list[Any] = [one_by_one, buffered, pt_weights_iterator, tensor_ranges]
    for make in makes:
        for slices in ([("w", (0, 1, 2))], "w", 3, {"w": (0, 1)}, {3: None}):
            with pytest.raises(TypeError, match="slices"):
                make(tmp_path / "none", slices=slices)
        with pytest.raises(ValueError, match="a step of 2"):
            make(tmp_path / "none", slices={"w": (slice(0, 4, 2),)})


def test_a_true_is_refused_after_a_1_was_taken() -> None:
    parts: list[Any] = [(0, 1, 2), (0, True, 2), (False, 1, 2)]
    asked = AskedParts(lambda _name, _shape, _dtype: parts.pop(0))
    tensor = TensorRange("w", 8, 96, "F32", (4, 6))
    assert next(asked.narrowed([tensor])).wanted_bytes == 24
    for _ in range(2):
        with pytest.raises(TypeError, match="must be a whole number"):
            list(asked.narrowed([tensor]))


def test_what_a_callable_raises_is_the_callers(tmp_path: Path) -> None:
    save_file({"w": torch.ones(4, 6)}, tmp_path / "m.safetensors")

    def broken(_name: str, _shape: tuple[int, ...], _dtype: str) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        one_by_one(tmp_path, slices=broken)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_names_that_no_shard_holds(
    tmp_path: Path,
    way: str,
    with_index: bool,
    suffix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    save: Any = save_file if suffix == ".safetensors" else torch.save
    make: Callable[..., Any] = one_by_one if suffix == ".safetensors" else pt_weights_iterator
    for number in range(2):
        save({f"layer.{number}": torch.ones(4)}, tmp_path / f"m-{number}{suffix}")
    if with_index:
        weight_map = {f"layer.{n}": f"m-{n}{suffix}" for n in range(2)}
        index = tmp_path / f"m{suffix}.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match="slices: none of the 1 names is a tensor") as caught:
        list(make(tmp_path, slices={"layers.0": (0, 0, 1)}, **WAYS[way]))
    assert "there are 'layer.0'" in str(caught.value)
    assert messages(caplog) == []
    some = {"layers.0": (0, 0, 1), "layer.1": (0, 0, 1)}
    found = [(name, len(tensor)) for name, tensor in make(tmp_path, slices=some, **WAYS[way])]
    assert found == [("layer.0", 4), ("layer.1", 1)]
    (said,) = messages(caplog)
    assert said.startswith("no shard holds 1 of the 2 tensors that slices names: 'layers.0' (")
    caplog.clear()
    lax = list(make(tmp_path, slices={"a": None}, strict=False, **WAYS[way]))
    assert len(lax) == 2
    assert len(messages(caplog)) == 1
    # Held, and not asked for: that is no mistake.
    left_out = {"layer.0": (0, 0, 1)}
    ((name, _),) = make(tmp_path, names=["layer.1"], slices=left_out, **WAYS[way])
    assert name == "layer.1"
    assert len(messages(caplog)) == 1
    assert len(list(make(tmp_path, slices={}, **WAYS[way]))) == 2


def test_bounds_are_those_of_python() -> None:
    assert bounds_of("w", (4, 6), (slice(-3, -1), slice(None))) == ((1, 3), (0, 6))
    assert bounds_of("w", (4, 6), (-1, 2, 3)) == ((0, 4), (2, 3))
    assert bounds_of("w", (4, 6), ()) == ((0, 4), (0, 6))
    assert bounds_of("w", (), ()) == ()
    with pytest.raises(ValueError, match="there is no dimension 0"):
        bounds_of("w", (), (0, 0, 0))
