"""The key under which a rank of an engine learns, by a stand-in of the engine's groups."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest

from shardahead import Options
from shardahead.integrations.learn_keys import keyed, places_in

STATE = "an_engine.parallel_state"
GROUPS = {"tp": "get_tp_group", "pp": "get_pp_group", "ep": "get_ep_group"}


def group(rank: int, size: int) -> Callable[[], SimpleNamespace]:
    return lambda: SimpleNamespace(rank_in_group=rank, world_size=size)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType(STATE)
    monkeypatch.setitem(sys.modules, STATE, module)
    monkeypatch.delenv("SHARDAHEAD_LEARN_KEY", raising=False)
    return module


def test_a_rank_is_known_by_its_places_in_the_groups(state: ModuleType) -> None:
    vars(state).update(get_tp_group=group(1, 4), get_pp_group=group(0, 1), get_ep_group=group(3, 8))
    assert places_in(STATE, GROUPS) == ["tp 1 of 4", "ep 3 of 8"]
    asked = keyed(Options(learn="/profiles", threads=3), "engine", STATE, GROUPS)
    assert asked == Options(learn="/profiles", threads=3, learn_key="engine tp 1 of 4 ep 3 of 8")


def test_a_single_rank_has_a_key_as_well(state: ModuleType) -> None:
    vars(state).update(get_tp_group=group(0, 1), get_pp_group=group(0, 1))
    assert keyed(Options(), "engine", STATE, GROUPS).learn_key == "engine tp 0 of 1"


def test_what_was_asked_for_comes_first(state: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    vars(state).update(get_tp_group=group(1, 2))
    monkeypatch.setenv("SHARDAHEAD_LEARN_KEY", "prefill")
    assert keyed(Options(), "engine", STATE, GROUPS).learn_key == "prefill engine tp 1 of 2"
    given = Options(learn_key="decode")
    assert keyed(given, "engine", STATE, GROUPS).learn_key == "decode engine tp 1 of 2"


def test_a_draft_model_has_a_key_of_its_own(state: ModuleType) -> None:
    vars(state).update(get_tp_group=group(1, 2))
    keys = [keyed(Options(), "e", STATE, GROUPS, m).learn_key for m in ("LlamaEagle", "Llama", "")]
    assert keys == ["e LlamaEagle tp 1 of 2", "e Llama tp 1 of 2", "e tp 1 of 2"]


def test_groups_that_are_not_there_leave_the_rank_to_say_it(state: ModuleType) -> None:
    def not_initialized() -> None:
        raise AssertionError("tensor model parallel group is not initialized")

    vars(state).update(get_tp_group=not_initialized, get_pp_group=lambda: None)
    assert keyed(Options(threads=2), "engine", STATE, GROUPS) == Options(threads=2)
    del sys.modules[STATE]
    assert keyed(Options(), "engine", STATE, GROUPS) == Options()
    assert STATE not in sys.modules
