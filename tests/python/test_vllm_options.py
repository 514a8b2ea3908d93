"""What --model-loader-extra-config may say, and when a load of vLLM is Shardahead's. No engine."""

from __future__ import annotations

from typing import Any

import pytest

from shardahead.integrations.vllm_options import (
    NOTHING_ASKED,
    OUR_KEYS,
    VLLM_KEYS,
    split_extra_config,
    wants_prefetch,
    within,
)

MIB = 2**20


def test_each_key_goes_to_whom_it_belongs() -> None:
    asked, theirs = split_extra_config(
        {"threads": 8, "mode": "pread", "drop_after": True, "max_workers": 3, "num_threads": 2}
    )
    assert (asked.options.mode, asked.drop_after, asked.max_workers) == ("pread", True, 3)
    assert asked.by_format
    assert asked.options.threads == 8
    assert theirs == {"num_threads": 2}


@pytest.mark.parametrize("value", [32 * MIB, "32MiB", "32M"])
def test_sizes_are_bytes_or_have_units(value: object) -> None:
    asked, _ = split_extra_config({"block_size": value, "window_bytes": value})
    options = asked.options
    assert (options.block_size, options.window_bytes) == (32 * MIB, 32 * MIB)


def test_an_unknown_key_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="'thraeds'") as caught:
        split_extra_config({"thraeds": 8})
    assert all(key in str(caught.value) for key in (*OUR_KEYS, *VLLM_KEYS))


@pytest.mark.parametrize(
    ("extra", "error", "text"),
    [
        ({"threads": 0}, ValueError, "threads must be between 1 and 256, not 0"),
        ({"threads": "8"}, TypeError, "threads must be a whole number, not '8'"),
        ({"block_size": "16MoB"}, ValueError, "block_size: "),
        ({"window_bytes": -1}, ValueError, "window_bytes must be between 0"),
        ({"mode": "fast"}, ValueError, "mode must be one of auto, mmap, pread, not 'fast'"),
        ({"partition": "x"}, ValueError, "partition must be one of"),
        ({"drop_after": 1}, TypeError, "drop_after must be true or false, not 1"),
        ({"max_workers": 0}, ValueError, "max_workers must be between 1 and 256, not 0"),
        ("threads=8", ValueError, "must be a dict for load format shardahead, not str"),
    ],
)
def test_a_bad_value_is_named(extra: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        split_extra_config(extra)
    assert text in str(caught.value)


def test_what_was_given_counts_before_what_vllm_says() -> None:
    asked, _ = split_extra_config({"threads": 3})
    options = asked.options_with(threads=16, block_size=MIB)
    assert (options.threads, options.block_size) == (3, MIB)
    assert NOTHING_ASKED.options_with(threads=16).threads == 16


def test_a_setting_of_vllm_counts_where_it_is_not_vllms_default() -> None:
    assert within(8, default=8, least=1, most=256) is None
    assert within(9, default=8, least=1, most=256) == 9
    assert within(1000, default=8, least=1, most=256) == 256
    assert within(1, default=16 * MIB, least=4096, most=2**30) == 4096


@pytest.mark.parametrize("strategy", [None, "prefetch", "lazy", "eager", "torchao", "new"])
@pytest.mark.parametrize("mount_class", ["network", "user_space", "local", "memory", "unknown"])
def test_whose_load_it_is(strategy: str | None, mount_class: str) -> None:
    remote = mount_class in ("network", "user_space")
    asked, _ = split_extra_config({})
    assert wants_prefetch(strategy, NOTHING_ASKED, [mount_class]) == (
        strategy == "prefetch" or (strategy is None and remote)
    )
    assert wants_prefetch(strategy, asked, [mount_class]) == (strategy in (None, "prefetch"))
