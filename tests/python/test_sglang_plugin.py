"""The SGLang plugin without SGLang: it changes nothing, and says so."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import pytest

from shardahead.integrations import seams, sglang
from shardahead.prefetch.options import is_prefetched_unasked


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seams, "_declined", set())
    # None: importing it fails, also where it is installed.
    monkeypatch.setitem(sys.modules, "sglang", None)


def test_the_entry_point_is_the_plugin() -> None:
    (found,) = [
        entry for entry in entry_points(group="sglang.srt.plugins") if entry.name == "shardahead"
    ]
    assert found.load() is sglang.register


def test_without_its_seams_it_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        sglang.register()
    (record,) = caplog.records
    assert "sglang" in record.getMessage()
    assert "weight_utils.safetensors_weights_iterator" in record.getMessage()


def test_disabled_it_does_not_even_look(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    sglang.register()
    assert not caplog.records


def test_a_switch_that_is_neither_leaves_the_engine_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHARDAHEAD_DISABLE", "maybe")
    for _ in range(2):
        sglang.register()
    (record,) = caplog.records
    assert "SHARDAHEAD_DISABLE" in record.getMessage()
    assert "'maybe'" in record.getMessage()


@pytest.mark.parametrize(
    ("mount_classes", "wanted"),
    [
        (["network"], True),
        (["user_space"], True),
        (["local", "network"], True),
        (["local"], False),
        (["memory"], False),
        (["unknown"], False),
        ([], False),
    ],
)
def test_unasked_only_what_comes_from_outside_is_prefetched(
    mount_classes: list[str], wanted: bool
) -> None:
    assert is_prefetched_unasked(mount_classes) is wanted
