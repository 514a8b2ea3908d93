"""Tensors that are asked for by name: names that match nothing are an error, some that do not are
said once. Which tensors come of those that match is in the tests of each iterator.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import messages
from weights_support import buffered, one_by_one, save_file

from shardahead import CheckpointError, pt_weights_iterator
from shardahead.checkpoint.asked_names import AskedNames
from shardahead.checkpoint.safetensors_header import MAX_TENSORS

torch = pytest.importorskip("torch")

MODES: list[dict[str, Any]] = [{}, {"mode": "mmap"}, {"mode": "pread"}, {"prefetch": False}]
MAKES: dict[str, tuple[str, Callable[..., Any]]] = {
    "one by one": (".safetensors", one_by_one),
    "buffered": (".safetensors", buffered),
    "torch": (".bin", pt_weights_iterator),
}
HELD = ["layers.0.up.weight", "layers.1.up.weight"]
WRONG = ["layer.1.up.weight", "a", "b", "c", "d"]


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> tuple[str, Callable[..., Any]]:
    return MAKES[request.param]


@pytest.fixture(params=["with an index", "without one"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, make: tuple[str, Any]) -> Path:
    """Two shards of one tensor each."""
    suffix, _ = make
    save = save_file if suffix == ".safetensors" else torch.save
    weight_map = {}
    for number, name in enumerate(HELD):
        shard = f"m-{number}{suffix}"
        save({name: torch.full((8,), float(number))}, tmp_path / shard)
        weight_map[name] = shard
    if request.param == "with an index":
        (tmp_path / f"m{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


@pytest.mark.parametrize("way", MODES)
def test_names_that_match_nothing_are_an_error(
    checkpoint: Path, make: tuple[str, Callable[..., Any]], way: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="names: ") as caught:
        list(make[1](checkpoint, names=WRONG, **way))
    assert not isinstance(caught.value, CheckpointError)
    assert str(caught.value) == (
        "names: none of the 5 names is a tensor: 'layer.1.up.weight', 'a', 'b' and 2 more; "
        "there are 'layers.1.up.weight', 'layers.0.up.weight' (strict=False: not an error)"
    )
    with pytest.raises(ValueError, match="names: the predicate takes none of the 2 tensors"):
        list(make[1](checkpoint, names=lambda _name: False, **way))


@pytest.mark.parametrize("way", MODES)
def test_not_where_they_need_not_match(
    checkpoint: Path,
    make: tuple[str, Callable[..., Any]],
    way: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    nothing: list[Any] = [[], (), set(), {}]
    for names in nothing:
        assert list(make[1](checkpoint, names=names, **way)) == []
    assert list(make[1](checkpoint, names=lambda _name: False, strict=False, **way)) == []
    assert messages(caplog) == []
    assert list(make[1](checkpoint, names=WRONG, strict=False, **way)) == []
    (said,) = messages(caplog)
    assert "no shard holds 5 of the 5 names that were asked for: 'layer.1.up.weight', " in said


@pytest.mark.parametrize("strict", [True, False])
def test_single_names_that_no_shard_holds_are_said_once(
    checkpoint: Path,
    make: tuple[str, Callable[..., Any]],
    strict: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = [HELD[1], *WRONG, HELD[0], WRONG[0]]
    with caplog.at_level(logging.INFO, "shardahead"):
        found = [name for name, _ in make[1](checkpoint, names=asked, strict=strict)]
    assert found == HELD
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    start = "no shard holds 5 of the 7 names that were asked for: 'layer.1.up.weight', 'a', 'b' and"
    assert said.startswith(start + " 2 more ")
    assert str(checkpoint) in said


def test_it_is_known_before_anything_is_read(
    tmp_path: Path, make: tuple[str, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix, iterate = make
    (tmp_path / f"m{suffix}").write_bytes(b"no checkpoint")
    index = tmp_path / f"m{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": {"w": f"m{suffix}"}}))
    monkeypatch.setattr("shardahead._core.Prefetch", None)
    monkeypatch.setattr("shardahead._core.TensorReader", None)
    for names in (["v"], lambda _name: False):
        with pytest.raises(ValueError, match="names: "):
            iterate(index, names=names)


@pytest.mark.parametrize("way", MODES)
def test_without_an_index_it_is_known_with_the_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "a.safetensors")
    monkeypatch.setattr("shardahead._core.Prefetch", None)
    for iterate in (one_by_one, buffered):
        with pytest.raises(ValueError, match="names: "):
            iterate(tmp_path, names=["v"], **way)


def test_a_predicate_that_was_never_asked_is_not_wrong(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    assert list(one_by_one(tmp_path, names=lambda _name: True)) == []
    with pytest.raises(ValueError, match="none of the 1 names is a tensor: 'w' \\(strict"):
        one_by_one(tmp_path, names=["w"])


def test_the_message_is_short_whatever_the_names_are() -> None:
    asked = AskedNames(["x" * 10**7, "\n" * 500, *(f"y{i}" for i in range(10**5))])
    held = {f"layers.{i}." + "z" * (i % 300) for i in range(MAX_TENSORS)}
    message = str(asked.none_found([*held, 7, None]))  # type: ignore[list-item]
    assert len(message) < 2000
    assert message.isprintable()
    assert "none of the 100002 names is a tensor" in message
