"""What people type as PATH: each kind of it, several together, and filters.

Through the command, in this process. No test asks the network, nor the cache of this user.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_support import write_index
from typed_support import BESIDE, COMMANDS, files_of, make, repository, run, shell, wrong

from shardahead.checkpoint.folder_rule import natural_sort_key
from shardahead.command import cli
from shardahead.command.typed_files import resolve_typed
from shardahead.command.typed_paths import PathKind, Typed, kind_of_file, steps

pytestmark = pytest.mark.usefixtures("hub_cache")

GGUF = ["m-Q4_K_M.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"]


# ---- the table of what was typed ----


@pytest.mark.parametrize("command", COMMANDS)
def test_a_repository_by_its_id_or_its_folder(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = repository(hub_cache, "Qwen/Qwen2-0.5B", "aaa", "bbb", main="aaa")
    for path in ("Qwen/Qwen2-0.5B", folder, f"{folder}/"):
        status, out, err = run(command, "--json", path)
        assert (status, err) == (0, "")
        document = json.loads(out)
        if command in ("status", "evict", "plan"):
            expected = str(folder / "snapshots" / "aaa" / "model.safetensors")
            assert [file["path"] for file in document["files"]] == [expected]


@pytest.mark.parametrize("command", COMMANDS)
def test_two_folders_add_up(tmp_path: Path, command: str) -> None:
    b = make(tmp_path / "b", "model.safetensors")
    a = make(tmp_path / "a", "x-2.bin", "x-10.bin")
    status, out, err = run(command, "--json", b, a)
    assert (status, err) == (0, "")
    document = json.loads(out)
    if "files" in document:
        names = [os.path.basename(file["path"]) for file in document["files"]]
        assert names == ["model.safetensors", "x-2.bin", "x-10.bin"]


@pytest.mark.parametrize("command", COMMANDS)
def test_all_that_a_shell_makes_of_a_star(tmp_path: Path, command: str) -> None:
    folder = make(tmp_path / "m", "a.safetensors", "b.safetensors", "c.safetensors", *BESIDE)
    write_index(folder / "model.safetensors.index.json", "c.safetensors", "a.safetensors")
    (folder / "figures").mkdir()
    status, out, err = run(command, "--json", *shell(folder))
    assert status == 0
    assert f"passed over {len(BESIDE) + 1} PATHs without shards" in err
    assert err.count("\n") == 1
    document = json.loads(out)
    if "files" in document:  # b, which no index names, was typed all the same
        names = [os.path.basename(file["path"]) for file in document["files"]]
        assert names == ["c.safetensors", "a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("pattern", ["x-*.safetensors", "x-?*", "*", "[x]-*.safetensors"])
def test_a_quoted_glob(tmp_path: Path, pattern: str) -> None:
    names = ["x-1.safetensors", "x-2.safetensors", "x-10.safetensors"]
    make(tmp_path / "m", *reversed(names))
    assert files_of(tmp_path / "m" / pattern, below=tmp_path / "m") == names
    assert files_of(*shell(tmp_path / "m"), below=tmp_path / "m") == names


def test_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "pipeline",
        *("vae/diffusion_pytorch_model.safetensors", "vae/config.json"),
        *("unet/diffusion_pytorch_model.safetensors",),
        *("text_encoder/model.safetensors", "text_encoder/pytorch_model.bin"),
        *("scheduler/scheduler_config.json", "tokenizer/vocab.json", "other/model.safetensors"),
        "single_file.safetensors",
    )
    parts = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30",
        "feature_extractor": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "vae": ["diffusers", "AutoencoderKL"],
        "../other": ["diffusers", "Evil"],
        "text_encoder_2": ["transformers", "absent"],
    }
    (folder / "model_index.json").write_text(json.dumps(parts))
    expected = [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    for path in (folder, folder / "model_index.json"):
        found = files_of(path, below=folder, said="left out: 'single_file.safetensors'")
        assert found == expected
    # As a shell gives them, what else is there was typed, too.
    found = files_of(*shell(folder), below=folder, said="passed over 2 PATHs")
    assert found == [*expected, "other/model.safetensors", "single_file.safetensors"]


def test_variants_of_the_parts_of_a_pipeline(tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        *("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.bin"),
        *("vae/diffusion_pytorch_model.safetensors",),
        "vae/diffusion_pytorch_model.fp16.safetensors",
    )
    index = {"vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    plain = [f"{part}/diffusion_pytorch_model.safetensors" for part in ("vae", "unet")]
    assert files_of(folder, below=folder, said=".fp16.bin'") == plain
    fp16 = files_of(folder, "--include", "*.fp16.*", below=folder)
    assert fp16 == [
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.bin",
    ]
    assert len(files_of(folder, "--all")) == 4


@pytest.mark.parametrize("command", ["warm", "status", "evict", "plan"])
def test_a_folder_of_distributed_checkpoint(tmp_path: Path, command: str) -> None:
    make(tmp_path, ".metadata", "__0_0.distcp", "__10_0.distcp", "__2_0.distcp", "common.pt")
    status, out, err = run(command, "--json", tmp_path)
    assert status == 0
    assert "left out: 'common.pt'" in err
    if command != "warm":
        names = [os.path.basename(file["path"]) for file in json.loads(out)["files"]]
        assert names == ["__0_0.distcp", "__2_0.distcp", "__10_0.distcp"]


def test_several_quantizations(tmp_path: Path) -> None:
    make(tmp_path / "m", *GGUF)
    said = wrong(2, tmp_path / "m")
    assert "'m-Q4_K_M.gguf', 'm-Q8_0-00001-of-00002.gguf'" in said
    assert "--include m-Q4_K_M.gguf say, or --all" in said
    for pattern, expected in (("m-Q4_K_M.gguf", GGUF[:1]), ("m-Q8_0-*-of-00002.gguf", GGUF[1:])):
        assert files_of(tmp_path / "m", "--include", pattern, below=tmp_path / "m") == expected
    (tmp_path / "m" / GGUF[0]).rename(tmp_path / "m" / "n-Q2-00001-of-00001.gguf")
    assert "--include 'm-Q8_0-*-of-00002.gguf' say" in wrong(2, tmp_path / "m")


# ---- several PATHs, and the filters ----


def test_each_path_in_the_order_typed(tmp_path: Path) -> None:
    make(tmp_path, "b/b-2.bin", "b/b-10.bin", "a/a.safetensors", "c/1.gguf", "c/x.gguf")
    make(tmp_path / "d", "1.bin", "2.bin")
    index = write_index(tmp_path / "d" / "m.bin.index.json", "2.bin", "1.bin")
    paths = [index, tmp_path / "c" / "x.gguf", tmp_path / "b", tmp_path / "a" / "*"]
    expected = ["d/2.bin", "d/1.bin", "c/x.gguf", "b/b-2.bin", "b/b-10.bin", "a/a.safetensors"]
    assert files_of(*paths, below=tmp_path) == expected
    mixed = [tmp_path / "b" / "b-10.bin", tmp_path / "a", tmp_path / "b" / "b-2.bin"]
    expected = ["b/b-10.bin", "a/a.safetensors", "b/b-2.bin"]
    assert files_of(*mixed, below=tmp_path) == expected


def test_the_same_shard_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "m", "a.safetensors", "b.safetensors")
    index = write_index(folder / "model.safetensors.index.json", "b.safetensors", "a.safetensors")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    paths = [folder / "a.safetensors", "m", index, "m/*.safetensors", tmp_path / "link"]
    assert files_of(*paths, below=tmp_path) == ["m/a.safetensors", "m/b.safetensors"]


def test_a_pattern_that_is_the_name_of_a_file(tmp_path: Path) -> None:
    make(tmp_path, "m[1].safetensors", "m1.safetensors", "*.safetensors")
    for name in ("m[1].safetensors", "*.safetensors"):
        assert files_of(tmp_path / name, below=tmp_path) == [name]
    found = files_of(tmp_path / "m*.safetensors", below=tmp_path)
    assert found == ["m1.safetensors", "m[1].safetensors"]


MIXED = [
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    *("model.fp16.safetensors", "consolidated.safetensors", "pytorch_model.bin"),
]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--include", "*.fp16.*"], MIXED[2:3]),
        (["--include", "model-*", "--include", "consol*"], [MIXED[3], *MIXED[:2]]),
        (["--include", "*.safetensors", "--exclude", "*.fp16.*"], [MIXED[3], *MIXED[:2]]),
        (["--exclude", "*00002-of*"], MIXED[:1]),
        (["--exclude", "model-*"], [MIXED[2]]),
        (["--exclude", "*.safetensors"], [MIXED[4]]),
        (["--all"], [MIXED[3], *MIXED[:3], MIXED[4]]),
        (["--all", "--exclude", "*.bin"], [MIXED[3], *MIXED[:3]]),
    ],
)
@pytest.mark.parametrize("indexed", [False, True])
def test_filters(tmp_path: Path, filters: list[str], expected: list[str], indexed: bool) -> None:
    make(tmp_path, *MIXED, "optimizer.pt", "config.json")
    if indexed:
        write_index(tmp_path / "model.safetensors.index.json", *MIXED[:2])
        if filters[0] == "--all":  # the index decides the order
            expected = [*MIXED[:2], *(name for name in expected if name not in MIXED[:2])]
    status, out, err = run("plan", "--json", tmp_path, *filters)
    assert status == 0, err
    assert [os.path.basename(file["path"]) for file in json.loads(out)["files"]] == expected


def test_filters_hold_for_every_path(tmp_path: Path) -> None:
    make(tmp_path, "a/1.bin", "a/2.bin", "b/1.bin", "b/2.bin")
    found = files_of(tmp_path / "a", tmp_path / "b/*.bin", "--exclude", "1.*", below=tmp_path)
    assert found == ["a/2.bin", "b/2.bin"]


def test_filters_that_leave_nothing(tmp_path: Path) -> None:
    make(tmp_path, "a.safetensors")
    for words in (["--include", "b*"], ["--exclude", "*"], ["--all", "--exclude", "a*"]):
        said = wrong(2, tmp_path, *words)
        assert "leaves nothing" in said
        assert "'a.safetensors'" in said
    assert "leaves nothing" in wrong(2, tmp_path / "a.safetensors", "--include", "b*")


def test_a_file_of_no_known_kind_counts(tmp_path: Path) -> None:
    make(tmp_path, "weights", "x.onnx", "a.safetensors")
    assert len(files_of(*shell(tmp_path))) == 3


KINDS = [
    *("/models/m ", "index.json", "'/models/m/*.gguf'", "/models/m/* ", "Qwen/Qwen2-0.5B"),
    *("models--", "model_index.json", "*.distcp", "--include '*Q4_K_M*'"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_each_kind(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    shown = "\n".join(lines)
    for kind in KINDS:
        assert kind in shown
    assert max(map(len, lines)) <= 80


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "m", "1.safetensors", "2.safetensors", "config.json")
    scandir, listed = os.scandir, []

    def counted(path: str) -> Any:
        listed.append(os.path.abspath(path))
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", counted)
        shards, _ = resolve_typed([str(tmp_path / "m")])
    assert [os.path.basename(shard.path) for shard in shards] == ["1.safetensors", "2.safetensors"]
    assert listed == [str(tmp_path / "m")]


NAMES = st.sampled_from(["1.bin", "2.bin", "10.bin", "x.bin.index.json", "config.json", "sub"])
PATHS = st.tuples(st.sampled_from(["", "a/", "b/"]), NAMES).map("".join)


@given(st.lists(PATHS))
def test_no_path_is_lost_and_none_comes_twice(paths: list[str]) -> None:
    kinds = {path: kind_of_file(path) for path in paths}
    kinds |= {path: PathKind.FOLDER for path in paths if path.endswith("sub")}
    found = steps([Typed(path, kinds[path]) for path in paths])
    came = Counter(path for step in found for path in step.paths)
    assert came == Counter(path for path in paths if kinds[path] is not PathKind.BESIDE)
    for step in found:
        assert step.kind is PathKind.SHARD or len(step.paths) == 1
        assert list(step.paths) == sorted(step.paths, key=natural_sort_key)


def test_what_is_left_out_is_said_whatever_its_format(tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        *("model-1-of-2.safetensors", "model-2-of-2.safetensors", "model.fp16.safetensors"),
        *("pytorch_model.bin", "m-Q4_K.gguf", "optimizer.pt", "config.json"),
    )
    status, _, said = run("plan", "--json", folder)
    assert status == 0
    assert said.startswith("shardahead: ")
    assert said.count("\n") == 1
    others = "'m-Q4_K.gguf', 'model.fp16.safetensors', 'pytorch_model.bin'"
    assert said.endswith(f"is the checkpoint; left out: {others}\n")


def test_what_is_left_out_is_said_by_one_rank_and_not_by_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path, "model.safetensors", "model.fp16.safetensors")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert run("status", folder)[2].count("\n") == lines
    assert not caplog.records


def test_the_plan_of_a_distributed_checkpoint_is_no_shard(tmp_path: Path) -> None:
    folder = make(tmp_path, "__0_0.distcp", ".metadata")
    assert "for the checkpoint type its folder" in wrong(2, folder / ".metadata")
