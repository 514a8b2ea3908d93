"""pt_weights_iterator: where in its dictionary a file has its weights."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from pt_support import by_torch, items_of, read

from shardahead import pt_weights_iterator

torch = pytest.importorskip("torch")

ONES = torch.ones(3)


def names(path: Path, content: object) -> list[str]:
    torch.save(content, path)
    return [name for name, _ in pt_weights_iterator(path)]


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "module"])
def test_a_dictionary_within(
    tmp_path: Path, wrapper: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, inner = tmp_path / "a.pt", OrderedDict(b=ONES, a=torch.zeros(2))
    assert names(path, {"epoch": 3, wrapper: inner, "args": {"lr": 0.1}}) == ["b", "a"]
    assert read(path) == items_of(by_torch(path)[wrapper])
    assert not caplog.records
    trainer = {"optimizer_states": [{"state": {0: {"exp_avg": ONES}}}], "rng_state": ONES}
    assert names(path, {wrapper: inner, **trainer}) == ["b", "a"]
    assert ["optimizer_states" in record.getMessage() for record in caplog.records] == [True]
    assert names(path, {"model": {"state_dict": {"x": ONES}}}) == ["x"]


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"encoder": {"w": ONES}, "decoder": {"w": ONES}}, "['encoder']['w']"),
        ({"w": ONES, "more": [1, (2, ONES)]}, "['more'][1][1]"),
        ({"w": ONES, "model": {"v": ONES}}, "['model']['v']"),
        ({"model": {"a": ONES}, "state_dict": {"a": ONES}}, "['model']['a']"),
        ({"model": {"a": ONES}, "ema": {"a": ONES}}, "['ema']['a']"),
        ({"model": {"a": ONES}, "mean": ONES}, "['model']['a']"),
        ({"model": {"a": ONES, "b": {"c": ONES}}}, "['b']['c']"),
        ({"model": [{"a": ONES}]}, "['model'][0]['a']"),
        ({"state": {0: {"exp_avg": ONES}}, "param_groups": []}, "['state'][0]['exp_avg']"),
        ({"a": {"b": {"c": {"d": {"e": ONES}}}}}, "['a']['b']['c']['d']..."),
    ],
)
def test_nothing_is_left_out_without_a_word(tmp_path: Path, content: Any, where: str) -> None:
    with pytest.raises(ValueError, match=re.escape(where)) as raised:
        names(tmp_path / "a.pt", content)
    assert str(tmp_path / "a.pt") in str(raised.value)


def test_what_contains_itself_or_one_thing_often(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"n": 1}
    loop["again"] = loop
    many: list[Any] = [1]
    for _ in range(60):
        many = [many, many]
    assert names(tmp_path / "a.pt", {"loop": loop, "many": many, "w": ONES}) == ["w"]
    loop["module"] = {"module": loop, "w": [ONES]}
    with pytest.raises(ValueError, match="not in its one dictionary"):
        names(tmp_path / "a.pt", loop)


@pytest.mark.parametrize("content", [ONES, [ONES], (ONES,), 3, None, {1, 2}, "text"])
def test_something_else_at_the_top(tmp_path: Path, content: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"no dictionary of tensors, but {type(content).__name__}"
    ):
        names(tmp_path / "a.pt", content)
