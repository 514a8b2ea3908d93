"""What people type as PATH that is in the Hugging Face cache, or not there, or of no use.

Through the command, in this process. No test asks the network, nor the cache of this user.
"""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from shard_support import write_index
from typed_support import BESIDE, COMMANDS, files_of, make, repository, run, wrong

pytestmark = pytest.mark.usefixtures("hub_cache")


# ---- the Hugging Face cache ----


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("HF_HOME")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, str(tmp_path / "there"))
    below = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
    cache = tmp_path / "there" / below.get(variable, ".cache/huggingface/hub")
    folder = repository(cache, "org/model", "r1", main="r1")
    repository(cache, "gpt2", "r1")
    expected = str(folder / "snapshots" / "r1" / "model.safetensors")
    assert files_of("org/model") == [expected]
    assert len(files_of("gpt2")) == 1


@pytest.mark.parametrize("main", ["", "gone", "../..", "old\n"])
def test_the_snapshot_of_main_else_the_newest(hub_cache: Path, main: str) -> None:
    folder = repository(hub_cache, "org/model", "old", "new", main=main)
    expected = "old" if main.strip() == "old" else "new"
    assert files_of("org/model", below=folder) == [f"snapshots/{expected}/model.safetensors"]


def test_the_library_is_asked_and_never_the_network(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    snapshot = make(tmp_path / "elsewhere", "model.safetensors")
    library = types.ModuleType("huggingface_hub")

    def snapshot_download(repository: str, **options: Any) -> str:
        calls.append((repository, options))
        if repository == "org/model":
            return str(snapshot)
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr(library, "snapshot_download", snapshot_download, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    assert files_of("org/model") == [str(snapshot / "model.safetensors")]
    folder = repository(hub_cache, "org/other", "r1")
    assert files_of("org/other", below=folder) == ["snapshots/r1/model.safetensors"]
    asked = ("org/model", "org/other")
    assert calls == [(each, {"local_files_only": True}) for each in asked]


def test_a_path_counts_before_a_repository(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(hub_cache, "org/model", "r1")
    make(tmp_path / "org" / "model", "a.safetensors")
    monkeypatch.chdir(tmp_path)
    assert files_of("org/model", below=tmp_path) == ["org/model/a.safetensors"]


def test_a_repository_that_is_not_there_or_not_whole(hub_cache: Path) -> None:
    said = wrong(1, "org/model")
    assert repr(str(hub_cache)) in said
    assert "hf download org/model" in said
    folder = repository(hub_cache, "org/modell", "r1")
    assert "did you mean 'org/modell'?" in wrong(1, "org/model")
    snapshot = folder / "snapshots" / "r1"
    write_index(snapshot / "model.safetensors.index.json", "model.safetensors", "b.safetensors")
    for path in ("org/modell", folder):
        said = wrong(1, path)
        assert "b.safetensors" in said
        assert "not whole; to fetch the rest: hf download org/modell" in said
    for name in ("model.safetensors.index.json", "model.safetensors"):
        (snapshot / name).unlink()
    make(snapshot, "config.json")
    assert "hf download org/modell" in wrong(2, "org/modell")
    (folder / "snapshots").rename(folder / "old")
    (folder / "snapshots").mkdir()
    said = wrong(2, folder)
    assert "no snapshot" in said
    assert "hf download org/modell" in said


# ---- what is not there, or of no use ----


def test_close_names(tmp_path: Path) -> None:
    folder = make(tmp_path / "models" / "qwen2", "model.safetensors")
    said = wrong(1, tmp_path / "models" / "qwen-2")
    assert f"did you mean {str(folder)!r}?" in said
    assert "No such file or directory" in said
    said = wrong(1, folder / "model.safetensor")
    assert f"did you mean {str(folder / 'model.safetensors')!r}?" in said
    said = wrong(1, tmp_path / "modles" / "qwen2")
    assert f"did you mean {str(tmp_path / 'models')!r}?" in said
    assert "there is no folder" in wrong(1, tmp_path / "zzz" / "qwen2")
    assert "nothing of a name like that" in wrong(1, tmp_path / "zzz")


def test_a_relative_path_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "models" / "qwen2", "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'models/qwen2'?" in wrong(1, "models/qwen-2")
    assert "did you mean 'models'?" in wrong(1, "modles")
    assert "did you mean 'models/qwen2'?" in wrong(1, "modles/qwen2")
    assert "''" in wrong(1, "")


def test_a_name_without_its_ending(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", "model.safetensors", "model.gguf", "modeller.bin")
    said = wrong(1, folder / "model")
    endings = " or ".join(repr(str(folder / f"model{end}")) for end in (".gguf", ".safetensors"))
    assert f"did you mean {endings}?" in said


def test_an_address_and_a_variable_that_is_not_set() -> None:
    said = wrong(1, "https://huggingface.co/org/model/tree/main")
    assert said.endswith("in the Hugging Face cache: type 'org/model'\n")
    said = wrong(1, "s3://bucket/models/m")
    assert "only what is mounted here is read" in said
    assert "type" not in said
    assert "the PATH is empty; a variable that is not set?" in wrong(1, "")


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").symlink_to("gone")
    for path in (tmp_path / "a.safetensors", tmp_path / "*.safetensors"):
        assert "it is a link to 'gone', which is not there" in wrong(1, path)


def test_a_glob_that_matches_nothing(tmp_path: Path) -> None:
    make(tmp_path / "m", "a.safetensors", "b.safetensors", "config.json")
    said = wrong(1, tmp_path / "m" / "*.safetensor")
    assert "matches nothing" in said
    assert f"did you mean {str(tmp_path / 'm' / '*.safetensors')!r}?" in said
    said = wrong(1, tmp_path / "m" / "*.gguf")
    assert "has '*.safetensors', '*.json'" in said
    assert "there is no folder" in wrong(1, tmp_path / "n" / "*.gguf")
    assert "matches nothing" in wrong(1, tmp_path / "*" / "*.gguf")


@pytest.mark.parametrize("name", BESIDE)
def test_a_single_file_that_is_no_shard(tmp_path: Path, name: str) -> None:
    make(tmp_path, *BESIDE, "a.safetensors")
    said = wrong(2, tmp_path / name)
    assert "is no shard" in said
    assert f"type its folder: {tmp_path}" in said


def test_a_folder_whose_subfolders_hold_shards(hub_cache: Path, tmp_path: Path) -> None:
    make(tmp_path / "models", "a/x.safetensors", "b/y.gguf", "c/config.json", "d/__0_0.distcp")
    said = wrong(2, tmp_path / "models")
    assert "no shards" in said
    assert f"in its subfolders 'a', 'b', 'd': type the one that is meant, {tmp_path}" in said
    repository(hub_cache, "org/model", "r1")
    assert "'models--org--model'" in wrong(2, hub_cache)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("$HOME/m", "in single quotes"),
        ("${MODELS}/m", "in single quotes"),
        ("'/models/m'", "the quotes are a part of it"),
        ('"/models/m"', "the quotes are a part of it"),
        ("/models/{a,b}", "quoted braces"),
        ("m-{1..3}.safetensors", "quoted braces"),
    ],
)
def test_what_a_shell_was_kept_from_is_said(typed: str, said: str) -> None:
    assert said in wrong(1, typed)


def test_a_price_is_no_variable(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert "quotes" not in wrong(1, tmp_path / "5$")
    assert "quotes" not in wrong(1, tmp_path / "{a}")


def test_folders_without_shards(tmp_path: Path) -> None:
    good = make(tmp_path / "good", "a.safetensors")
    empty = tmp_path / "empty"
    empty.mkdir()
    for paths in ([empty], [good, empty]):
        assert f"no shards in the folder {str(empty)!r}: it is empty" in wrong(2, *paths)
    make(tmp_path / "fetched", *BESIDE)
    assert "weights were not fetched?" in wrong(2, tmp_path / "fetched")
    make(tmp_path / "text", "a.txt")
    said = wrong(2, tmp_path / "text")
    assert "*.safetensors" in said
    assert "but 'a.txt': what is to be read of them goes by its own PATH" in said
    (tmp_path / "folders" / "a").mkdir(parents=True)
    assert wrong(2, tmp_path / "folders").endswith("but 'a'\n")


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 10**5, '{"a": 1}', " " * (2 << 20)])
def test_a_model_index_that_names_no_parts(tmp_path: Path, content: str) -> None:
    (tmp_path / "model_index.json").write_text(content)
    assert "model_index.json" in wrong(2, tmp_path) or content == '{"a": 1}'


def test_several_indexes(tmp_path: Path) -> None:
    make(tmp_path, "a.bin", "b.bin")
    write_index(tmp_path / "o.bin.index.json", "b.bin")
    write_index(tmp_path / "p.bin.index.json", "a.bin")
    said = wrong(2, tmp_path)
    assert f"type the one that is meant instead of the folder, {tmp_path}/o.bin.index.json" in said
    assert files_of(tmp_path / "o.bin.index.json", below=tmp_path) == ["b.bin"]
    assert files_of(tmp_path, "--all", below=tmp_path) == ["b.bin", "a.bin"]


def test_a_name_of_any_characters(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\n\xff\x1b[31m")
    make(tmp_path, name + "1.bin")
    for path in (name + "2.bin", name + "2/x", name + "*.gguf"):
        assert "\x1b" not in wrong(1, tmp_path / path)


def test_all_that_are_not_there_are_told_at_once(tmp_path: Path) -> None:
    make(tmp_path, "model.safetensors")
    message = wrong(1, tmp_path / "a", tmp_path, tmp_path / "b", tmp_path / "c")
    assert message.index("/a'") < message.index("Nor are there") < message.index("/b'")
    assert "/c'" in message
    many = wrong(1, *(tmp_path / str(i) for i in range(9)))
    assert many.endswith("and 5 more\n")


@pytest.mark.parametrize(
    "typed",
    ["Small-1B", "small-1b", "models--Org--Small-1B", "Org/Small-1B@main", "hf://Org/Small-1B"],
)
def test_a_repository_goes_by_its_id(hub_cache: Path, typed: str) -> None:
    repository(hub_cache, "Org/Small-1B", "abc", main="abc")
    assert "type 'Org/Small-1B'" in wrong(1, typed)


def test_a_quoted_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"type {tmp_path}/m" in wrong(1, "~/m")
    assert "type it without quotes" in wrong(1, "~nobody-of-that-name/m")


@pytest.mark.parametrize(("missing", "which"), [([1], "this one"), ([1, 2], "the first of them")])
def test_shards_that_an_index_names_and_that_are_not_there(
    tmp_path: Path, missing: list[int], which: str
) -> None:
    names = [f"model-{i}-of-3.safetensors" for i in (1, 2, 3)]
    write_index(make(tmp_path, *names) / "model.safetensors.index.json", *names)
    for i in missing:
        (tmp_path / names[i]).unlink()
    index = tmp_path / "model.safetensors.index.json"
    for path in (tmp_path, index):
        message = wrong(1, path)
        assert str(tmp_path / names[1]) in message
        text = f"{len(missing)} of the 3 shards that '{index}' names missing, {which}"
        assert text in message


@pytest.mark.parametrize("command", COMMANDS)
def test_programs_are_told_what_is_wrong_as_json(tmp_path: Path, command: str) -> None:
    for path, status in ((tmp_path / "absent", 1), (tmp_path, 2)):
        found, out, err = run(command, "--json", path)
        assert found == status
        document = json.loads(out)
        assert set(document) == {"schema", "reason"}
        assert err == f"shardahead: {document['reason']}\n"
