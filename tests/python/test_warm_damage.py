"""`warm` of shards that no loader takes, though all their bytes can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pt_support import saved
from typed_support import run

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

TENSORS = {"a": torch.arange(5000.0), "b": torch.arange(3000.0)}
WHOLE = {
    "m.safetensors": safetensors.save(TENSORS),
    "m.bin": saved(TENSORS),
}
#: Parts of a shard that are left: nothing that says how long it was to be is in the shortest.
CUT = [("m.safetensors", 0.999), ("m.safetensors", 0.5), ("m.safetensors", 0.002), ("m.bin", 0.6)]


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_shard_is_warm(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WHOLE[name])
    status, _, said = run("warm", "-q", tmp_path)
    assert (status, said) == (0, "")


@pytest.mark.parametrize(("name", "left"), CUT)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_shard_that_was_cut_off_is_not_called_warm(
    tmp_path: Path, name: str, left: float, as_json: bool
) -> None:
    content = WHOLE[name]
    path = tmp_path / name
    path.write_bytes(content[: int(left * len(content))])
    status, printed, said = run("warm", "-q", *(["--json"] if as_json else []), tmp_path)
    assert status == 1
    reason = json.loads(printed)["reason"] if as_json else said
    assert str(path) in reason
    assert str(len(path.read_bytes())) in reason or "cut off" in reason
    assert said.count(str(path)) == 1


def test_the_first_is_named_and_the_others_are_counted(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"m-{i}.safetensors").write_bytes(WHOLE["m.safetensors"][: 10_000 + i])
    status, _, said = run("warm", "-q", tmp_path)
    assert status == 1
    assert "m-0.safetensors" in said
    assert "2 more that no loader takes" in said


IN_PLACE = [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git-lfs"),
    (b"<!DOCTYPE html><html>", "web page"),
    (bytes(5000), "zeros"),
]


@pytest.mark.parametrize(
    ("name", "content", "looks_like"),
    [
        *((name, *each) for name in (*WHOLE, "m.gguf", "m.distcp") for each in IN_PLACE),
        *((name, b'{"error": "no access"}', "JSON") for name in WHOLE),
    ],
)
def test_what_came_in_place_of_a_shard_is_told(
    tmp_path: Path, name: str, content: bytes, looks_like: str
) -> None:
    (tmp_path / name).write_bytes(content)
    status, _, said = run("warm", "-q", tmp_path)
    assert status == 1
    assert str(tmp_path / name) in said
    assert looks_like in said


def test_a_shard_of_the_other_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(WHOLE["m.safetensors"])
    assert "safetensors file" in run("warm", "-q", tmp_path)[2]


@pytest.mark.parametrize("content", [b"GGUF" + bytes(600), b"x" * 600])
@pytest.mark.parametrize("name", ["m.gguf", "m.distcp"])
def test_what_they_may_hold_is_not_judged(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert run("warm", "-q", tmp_path)[0] == 0


# ---- of 0 bytes ----


@pytest.mark.parametrize("name", ["m.safetensors", "m.bin", "m.pt", "m.gguf", "m.distcp"])
@pytest.mark.parametrize("as_json", [False, True])
def test_an_empty_shard_is_not_called_warm(tmp_path: Path, name: str, as_json: bool) -> None:
    (tmp_path / name).touch()
    status, printed, said = run("warm", "-q", *(["--json"] if as_json else []), tmp_path)
    assert status == 1
    reason = json.loads(printed)["reason"] if as_json else said
    assert f"{str(tmp_path / name)!r} is empty" in reason


def test_an_empty_shard_among_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "m-1.safetensors").write_bytes(WHOLE["m.safetensors"])
    (tmp_path / "m-2.safetensors").touch()
    status, printed, said = run("warm", "-q", tmp_path)
    assert status == 1
    assert printed.startswith("warm: ")
    assert "m-2.safetensors' is empty" in said
    assert "m-1" not in said


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_rank_that_had_nothing_to_save_leaves_an_empty_file(tmp_path: Path) -> None:
    checkpoint = pytest.importorskip("torch.distributed.checkpoint")
    checkpoint.save(TENSORS, checkpoint_id=tmp_path, no_dist=True)
    (shard,) = tmp_path.glob("*.distcp")
    (tmp_path / "__1_0.distcp").touch()
    assert run("warm", "-q", tmp_path)[0] == 0
    shard.write_bytes(b"")
    status, _, said = run("warm", "-q", tmp_path)
    assert status == 1
    assert f"{str(shard)!r} is empty" in said
    assert "more that no loader takes" not in said


def test_a_file_of_another_ending_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "a.dat").touch()
    assert run("warm", "-q", tmp_path / "a.dat")[0] == 0


# ---- what is not judged ----


@pytest.mark.parametrize("name", WHOLE)
def test_what_begins_as_nothing_that_is_known_is_not_judged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x" * 5000)
    status, _, said = run("warm", "-q", tmp_path)
    assert (status, said) == (0, "")


def test_what_is_followed_may_end_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(WHOLE["m.safetensors"][:10_000])
    status, _, said = run("warm", "-q", "--follow", "--follow-idle", "0.3", tmp_path)
    assert (status, said) == (0, "")
