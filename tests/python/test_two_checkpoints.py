"""A folder that holds several checkpoints: one of them by rule, or an error that lists them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from conftest import messages
from shard_support import names_of, write, write_index

from shardahead.checkpoint.folder_rule import choose
from shardahead.checkpoint.shards import PT_SUFFIXES, resolve_shards

SET = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
FP16_SET = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]
OLD_FP16_SET = ["pytorch_model-00001-of-00002.fp16.bin", "pytorch_model-00002-of-00002.fp16.bin"]


def of(stem: str, total: int, suffix: str = ".gguf") -> list[str]:
    return [f"{stem}-{i:05}-of-{total:05}{suffix}" for i in range(1, total + 1)]


@pytest.mark.parametrize(
    ("expected", "left_out"),
    [
        # The plain name before variants.
        (["model.safetensors"], ["model.fp16.safetensors"]),
        (["model.safetensors"], ["model.fp16.safetensors", "model.non_ema.safetensors"]),
        (["model.safetensors"], FP16_SET),
        (SET, FP16_SET),
        (["pytorch_model.bin"], ["pytorch_model.fp16.bin", "pytorch_model.ema.bin"]),
        (["pytorch_model.bin"], OLD_FP16_SET),
        (["unet.safetensors", "vae.safetensors"], ["vae.fp16.safetensors"]),
        (["diffusion_pytorch_model.safetensors"], ["diffusion_pytorch_model.fp16.safetensors"]),
        # What is the folder's own before anything else, a file before a set.
        (["model.safetensors"], SET),
        (["model.safetensors"], ["mtp.safetensors"]),
        (SET, ["mtp.safetensors"]),
        (SET, of("other", 3, ".safetensors")),
        # The original format and adapters, only where there is nothing else.
        (["model.safetensors"], ["consolidated.safetensors"]),
        (SET, ["consolidated.safetensors"]),
        (SET, ["consolidated-00001-of-00001.safetensors"]),
        (["model.pth"], ["consolidated.00.pth", "consolidated.01.pth"]),
        (["model.safetensors"], ["adapter_model.safetensors"]),
        (["a.safetensors", "b.safetensors"], ["adapter_model.safetensors"]),
        (["consolidated.safetensors"], ["adapter_model.safetensors"]),
        (["adapter_model.safetensors"], ["pytorch_lora_weights.safetensors"]),
        # What lies beside the weights of llama.cpp.
        (["m-Q4_K_M.gguf"], ["mmproj-model-f16.gguf"]),
        (of("m-Q8_0", 3), ["mmproj-m-f16.gguf", "m-imatrix.gguf"]),
    ],
)
def test_one_by_rule_and_the_others_said(
    tmp_path: Path, expected: list[str], left_out: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in [*left_out, *expected]:
        write(tmp_path / name)
    assert names_of(resolve_shards(tmp_path)) == expected
    (said,) = messages(caplog)
    assert all(repr(name) in said for name in left_out)


@pytest.mark.parametrize(
    "names",
    [
        SET,
        FP16_SET,
        OLD_FP16_SET,
        ["model.fp16.safetensors"],
        ["consolidated.00.pth", "consolidated.01.pth"],
        ["layer.0.bin", "layer.1.bin"],
        ["m-Q4_K_M.gguf"],
        of("m-Q4_K_M", 4),
        ["model-0-of-2.safetensors", "model-1-of-2.safetensors"],
        ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"],
        ["a.fp16.safetensors", "b.fp16.safetensors"],
    ],
)
def test_one_that_is_whole(
    tmp_path: Path, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in names:
        write(tmp_path / name)
    assert names_of(resolve_shards(tmp_path)) == names
    assert not messages(caplog)


@pytest.mark.parametrize(
    "names",
    [
        ["m-Q4_K_M.gguf", "m-Q8_0.gguf"],
        [*of("m-Q4_K_M", 2), *of("m-Q8_0", 3)],
        [*of("m-Q4_K_M", 2), "m-Q8_0.gguf"],
        [*of("model", 2, ".safetensors"), *of("model", 3, ".safetensors")],
        [*of("one", 2, ".safetensors"), *of("two", 2, ".safetensors")],
        ["model.fp16.safetensors", "model.bf16.safetensors"],
        ["o.safetensors.index.json", "p.safetensors.index.json", "a.safetensors"],
        ["model.safetensors.index.fp16.json", "model.safetensors.index.bf16.json"],
    ],
)
def test_several_of_which_no_rule_says_which(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write(tmp_path / name)
    with pytest.raises(ValueError, match="several") as caught:
        resolve_shards(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert sum(repr(name) in str(caught.value) for name in names) == 2
    # Files that are passed one by one are meant.
    shards = [tmp_path / name for name in names if not name.endswith("json")]
    assert not shards or len(resolve_shards(shards)) == len(shards)


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        (["model-00001-of-00002.safetensors"], "model-00002-of-00002.safetensors"),
        (["model-00002-of-00002.safetensors"], "model-00001-of-00002.safetensors"),
        (["m-00000-of-00003.bin", "m-00002-of-00003.bin"], "m-00001-of-00003.bin"),
        (["m-Q8_0-00002-of-00999.gguf"], "m-Q8_0-00001-of-00999.gguf"),
        (["m-00001-of-00002.fp16.bin"], "m-00002-of-00002.fp16.bin"),
    ],
)
def test_a_set_of_which_one_is_missing(tmp_path: Path, there: list[str], missing: str) -> None:
    paths = [write(tmp_path / name) for name in there]
    with pytest.raises(FileNotFoundError) as caught:
        resolve_shards(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(tmp_path / missing))
    assert len(resolve_shards(paths)) == len(paths)


@pytest.mark.parametrize(
    ("index", "left_out"),
    [
        ("model.safetensors.index.json", ["model.safetensors.index.fp16.json"]),
        ("model.safetensors.index.json", ["consolidated.safetensors.index.json"]),
        ("model.safetensors.index.json", ["consolidated.safetensors", "model.safetensors"]),
        ("diffusion_pytorch_model.safetensors.index.json", ["x.safetensors.index.json"]),
        ("x.safetensors.index.json", ["x.safetensors.index.fp16.json", "old.safetensors"]),
    ],
)
def test_an_index_counts_before_anything_else(
    tmp_path: Path, index: str, left_out: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "sub" / "b.safetensors")
    for name in [*left_out, "a.safetensors"]:
        write(tmp_path / name)
    write_index(tmp_path / index, "a.safetensors", "./sub/b.safetensors")
    assert names_of(resolve_shards(tmp_path)) == ["a.safetensors", "b.safetensors"]
    (said,) = messages(caplog)
    assert all(repr(name) in said for name in left_out)
    assert "'a.safetensors'" not in said


def test_the_index_of_a_variant_only_where_nothing_plain_is(tmp_path: Path) -> None:
    for name in FP16_SET:
        write(tmp_path / name)
    write_index(tmp_path / "model.safetensors.index.fp16.json", *FP16_SET)
    assert names_of(resolve_shards(tmp_path)) == FP16_SET
    write(tmp_path / "model.safetensors")
    assert names_of(resolve_shards(tmp_path)) == ["model.safetensors"]


def test_a_model_in_another_format_counts_before_an_adapter(tmp_path: Path) -> None:
    write(tmp_path / "adapter_model.safetensors")
    write(tmp_path / "voices.pt")
    assert names_of(resolve_shards(tmp_path)) == ["adapter_model.safetensors"]
    write(tmp_path / "pytorch_model.bin")
    assert names_of(resolve_shards(tmp_path)) == ["pytorch_model.bin"]
    assert names_of(resolve_shards(tmp_path, PT_SUFFIXES)) == ["pytorch_model.bin"]


def test_a_set_whose_total_is_no_number_of_files() -> None:
    with pytest.raises(FileNotFoundError):
        choose("m", ["a-1-of-99999999999999999999.bin"])
    assert choose("m", ["a-1-of-0.bin"]).shards == ("a-1-of-0.bin",)
