"""`shardahead stage`: what it says, in text and as JSON, and its exit status."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, MakeMount, eventually, finish, make_cold, start_python
from replica_support import make_model, place, staged_bytes, visible

import shardahead
from shardahead.command import cli
from shardahead.replica.replica_lock import take_lock

SIZES = (40 * MIB + 123, 17 * MIB, 4096)
COMMAND = "import sys, shardahead.command.cli; sys.exit(shardahead.command.cli.main(sys.argv[1:]))"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of one that nothing is wrong with: no shard of it is empty."""
    return make_model(tmp_path / "source" / "model", SIZES)


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    status = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_stage_and_what_is_there_afterwards(
    model: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "stage", model, "--to", local, "--quiet")
    assert status == 0
    assert out.startswith("stage: 57.0 MiB in ")
    assert str(local / "model") in out
    status, out, err = run(capsys, "stage", model, "--to", local)
    assert status == 0
    assert err.endswith("is the checkpoint; left out: 'pytorch_model.bin'\n")
    assert out == f"stage: {str(local / 'model')!r} is there: 57.0 MiB\n"
    status, out, _ = run(capsys, "stage", "--list", "--to", local)
    assert status == 0
    assert f"1 replica in {str(local)!r}" in out
    assert "whole" in out
    assert str(model) in out


def test_the_path_of_an_original_may_be_long(
    model: Path, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = tmp_path / "/".join(["a-folder-with-a-long-name"] * 4) / "model"
    far.parent.mkdir(parents=True)
    model.rename(far)
    assert run(capsys, "stage", far, "--to", local, "-q")[0] == 0
    _, out, _ = run(capsys, "stage", "--list", "--to", local)
    *_, heads, _rule, original, replica = out.splitlines()
    assert heads.split() == ["replica", "on", "disk", "state"]
    assert original == f"of {far}"
    assert replica.split() == ["model", "57.0", "MiB", "whole"]


def test_the_folder_may_come_from_the_environment(
    model: Path,
    local: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, _, err = run(capsys, "stage", model)
    assert status == 2
    assert "--to FOLDER" in err
    assert "SHARDAHEAD_REPLICA_FOLDER" in err
    monkeypatch.setenv("SHARDAHEAD_REPLICA_FOLDER", str(local))
    assert run(capsys, "stage", model, "-q")[0] == 0
    assert visible(local) == ["model"]


def test_a_block_that_rotted_is_found(
    model: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replica = shardahead.stage(model, local)
    assert run(capsys, "stage", "--verify", "--to", local)[:2] == (
        0,
        "stage: 'model': all 57.0 MiB right (6 blocks)\n",
    )
    before = os.stat(replica.paths[0])
    with open(replica.paths[0], "r+b") as file:  # a bit, behind the back of size and time
        file.seek(17 * MIB)
        byte = file.read(1)
        file.seek(17 * MIB)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(replica.paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    status, out, err = run(capsys, "stage", "--verify", model, "--to", local)
    assert status == 1
    assert f"bytes {16 * MIB} to {32 * MIB} are not what was copied" in out
    assert "1 replica not whole: model" in err
    status, out, _ = run(capsys, "stage", "--verify", "--to", local, "--json")
    assert status == 1
    (found,) = json.loads(out)["replicas"]
    assert len(found["damage"]) == 1


@pytest.mark.parametrize("by", ["source", "name", "path", "index"])
def test_what_is_removed_is_gone_and_nothing_else(
    model: Path, local: Path, tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_model(tmp_path / "source" / "other", (MIB,))
    for each in (model, other):
        shardahead.stage(each, local)
    word = {
        "source": model,
        "name": "model",
        "path": local / "model",
        "index": model / "model.safetensors.index.json",
    }[by]
    status, out, _ = run(capsys, "stage", "--remove", word, "--to", local)
    assert (status, out.startswith("stage: removed 'model', 57")) == (0, True)
    assert visible(local) == ["other"]
    status, _, err = run(capsys, "stage", "--remove", word, "--to", local)
    assert status == 2
    assert "it has other" in err
    status, _, err = run(capsys, "stage", "--remove", "--to", local)
    assert status == 2


def test_what_is_being_made_is_not_removed_under_its_maker(
    model: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shardahead.stage(model, local)
    lock = take_lock(place(local).lock)
    assert lock is not None
    with lock:
        status, _, err = run(capsys, "stage", "--remove", model, "--to", local)
    assert status == 1
    assert "is being staged by another process" in err
    assert visible(local) == ["model"]


def test_a_signal_leaves_what_the_next_run_goes_on_with(
    model: Path, local: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(model.parent, rate_mb_per_s=60)
    source = mount.mountpoint / "model"
    words: list[Any] = ["stage", source, "--to", local]
    stopped = start_python(COMMAND, *words)
    eventually(lambda: staged_bytes(local) > 20 * MIB, "nothing is staged")
    stopped.send_signal(signal.SIGTERM)
    done = finish(stopped)
    assert done.returncode == 128 + signal.SIGTERM
    assert "are left: the same command goes on" in done.stdout
    assert "incomplete: terminated by SIGTERM" in done.stderr
    done = finish(start_python(COMMAND, *words, "--json"))
    document = json.loads(done.stdout)
    assert document["kept_bytes"] >= 16 * MIB
    assert document["kept_bytes"] + document["copied_bytes"] == document["size_bytes"] == sum(SIZES)
    assert document["path"] == str(local / "model")


def test_an_unreadable_shard_is_said_once_with_file_and_offset(
    model: Path, local: Path, make_mount: MakeMount, capsys: pytest.CaptureFixture[str]
) -> None:
    mount = make_mount(model.parent)
    shard = sorted(mount.mountpoint.glob("model/*.safetensors"))[0]
    mount.bad(f"model/{shard.name}", 20 * MIB, 1)
    make_cold(shard)
    status, out, err = run(capsys, "stage", mount.mountpoint / "model", "--to", local, "-q")
    assert status == 1
    assert err.count(shard.name) == 1
    assert f"at offset {20 * MIB}: Input/output error; " in err
    assert "are left" in out


def test_a_damaged_original_is_staged_as_it_is_and_said(
    tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the same judgement as of `warm`."""
    folder = tmp_path / "source" / "model"
    make_model(folder, (MIB, 4096))
    status, _, told = run(capsys, "stage", folder, "--to", local, "-q")
    assert status == 0
    assert told.endswith("is the checkpoint; left out: 'pytorch_model.bin'\n")
    cut, pointer = sorted(folder.glob("*.safetensors"))
    header = b'{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (MIB, MIB)
    cut.write_bytes(len(header).to_bytes(8, "little") + header + bytes(MIB // 2))
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    fetch = f"; that is how it is in '{folder}': fetch it there again"
    for _ in range(2):  # that it is there already changes nothing
        status, out, err = run(capsys, "stage", folder, "--to", local, "-q")
        assert status == 1
        assert f"{str(local / 'model')!r}" in out
        (line,) = err.removeprefix(told).splitlines()
        assert line.startswith(f"shardahead: incomplete: '{local}/model/{cut.name}': ")
        assert line.endswith(f"; and 1 more that no loader takes{fetch}")
    warmed = run(capsys, "warm", folder, "-q")[2].removeprefix(told)
    assert warmed.replace(str(folder), str(local / "model")) == f"{line.removesuffix(fetch)}\n"
    status, out, _ = run(capsys, "stage", folder, "--to", local, "--json")
    document = json.loads(out)
    assert (status, document["path"]) == (1, str(local / "model"))
    assert line.endswith(document["reason"])


def test_of_a_distributed_checkpoint_a_rank_may_have_had_nothing_to_save(
    tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is beside the shards decides whether an empty one is damaged: it is staged as well."""
    folder = tmp_path / "source" / "step-1"
    folder.mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(bytes([7]) * 4096)
    (folder / "__1_0.distcp").touch()
    (folder / ".metadata").write_bytes(b"\x80\x04__0_0.distcp")
    assert run(capsys, "stage", folder, "--to", local, "-q")[::2] == (0, "")
    (folder / ".metadata").write_bytes(b"\x80\x04__0_0.distcp__1_0.distcp")
    status, _, err = run(capsys, "stage", folder, "--to", local, "-q")
    assert status == 1
    assert "__1_0.distcp' is empty" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "/nowhere/at/all"], "No such file"),
        (["--to", ""], "--to FOLDER"),
        (["--to", "a\0b"], "NUL"),
        (["--to", "/tmp", "--list", "--remove"], "not allowed with"),
        (["--to", "/tmp", "--threads", "0"], "--threads: must be between 1 and 256, not 0"),
        (["--to", "/tmp", "--threads", "x"], "--threads: not a whole number: 'x' (1 to 256)"),
        (["--to", "/tmp", "--nodes", "65"], "--nodes: must be between 1 and 64, not 65"),
        (["--to", "/tmp", "--node-rank", "x"], "--node-rank: not a whole number: 'x' (0 to 63)"),
    ],
)
def test_what_is_mistyped_is_said(
    model: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status, _, err = run(capsys, "stage", model, *words)
    except SystemExit as left:
        status, err = int(str(left.code)), capsys.readouterr().err
    assert status in (1, 2)
    assert said in err
    assert len(err.splitlines()) <= 2
