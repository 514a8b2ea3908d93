"""Checkpoints, names and neighbours that mean harm: nothing is run, nothing hangs, and what is said
of them fits on one line of a log or of a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MIB, NOBODY, REPOSITORY, clean_environment, write_file
from test_cli import COMMANDS, run

from shardahead import prefetch_files, safetensors_weights_iterator
from shardahead.checkpoint.safetensors_header import check_tiles, read_header
from shardahead.checkpoint.shard_index import MAX_NAME_BYTES
from shardahead.checkpoint.shards import resolve_shards
from shardahead.node.mounts import Mount
from shardahead.node.page_keeping import keeping_reason
from shardahead.units import printable, quoted

HOSTILE = os.fsdecode(b"a\n\xff\x1b[2J\x07\xe2\x80\xae") + "b"
LONG_NAME = "t" * 1_000_000


def write_header(path: Path, header: object, data_bytes: int = 0) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data_bytes))
    return path


def is_one_short_line(message: str) -> bool:
    return message.isprintable() and len(message) < 10_000


# ---- what is said ----


@pytest.mark.parametrize("name", [HOSTILE, LONG_NAME, "\ud800\x00", ""])
def test_a_name_is_quoted_on_one_short_line(name: str) -> None:
    assert is_one_short_line(quoted(name))
    assert printable(name).isprintable()
    printable(name).encode()  # raises for a lone surrogate, which no stream takes


@pytest.mark.parametrize("name", [HOSTILE, LONG_NAME])
@pytest.mark.parametrize("offsets", [(-1, 4), (4, 0), (0, 2**63), (0, 11), (2**64, 2**64 + 1)])
def test_a_tensor_that_lies_elsewhere(tmp_path: Path, name: str, offsets: tuple[int, int]) -> None:
    entry = {"dtype": "U8", "shape": [4], "data_offsets": offsets}
    path = write_header(tmp_path / "a.safetensors", {name: entry}, 10)
    with pytest.raises(ValueError, match="lies in bytes") as caught:
        read_header(str(path))
    assert is_one_short_line(str(caught.value))
    with pytest.raises(ValueError, match="lies in bytes"):
        list(safetensors_weights_iterator([path]))


@pytest.mark.parametrize("second", [(2, 6), (5, 9), (0, 4)])
def test_tensors_that_overlap_or_leave_a_gap(tmp_path: Path, second: tuple[int, int]) -> None:
    header = {
        "a": {"dtype": "U8", "shape": [4], "data_offsets": (0, 4)},
        HOSTILE: {"dtype": "U8", "shape": [4], "data_offsets": second},
    }
    path = write_header(tmp_path / "a.safetensors", header, second[1])
    with pytest.raises(ValueError, match="begins at byte") as caught:
        check_tiles(str(path), read_header(str(path)), path.stat().st_size)
    assert is_one_short_line(str(caught.value))


def test_a_header_of_100_mb_of_one_name(tmp_path: Path) -> None:
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    path = write_header(tmp_path / "a.safetensors", {"n" * 99_999_900: entry}, 3)
    with pytest.raises(ValueError, match="99999900 characters") as caught:
        read_header(str(path))
    assert is_one_short_line(str(caught.value))


def test_what_a_header_holds_does_not_become_the_message(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    text = b'{"a' + b"x" * 1_000_000 + b'\xff":1}'
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match="UnicodeDecodeError") as caught:
        read_header(str(path))
    assert is_one_short_line(str(caught.value))


def test_headers_and_indexes_drawn_at_random(tmp_path: Path) -> None:
    program = REPOSITORY / "tests" / "fuzz" / "fuzz_headers.py"
    done = subprocess.run(
        [sys.executable, program, "--runs", "5000", "--findings", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5000 executions" in done.stdout


@pytest.mark.parametrize("name", ["x" * (MAX_NAME_BYTES + 1), "/" + "x" * 10**6, "../" * 10**5])
def test_an_index_with_a_name_longer_than_any_path(tmp_path: Path, name: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"t": name}}))
    with pytest.raises(ValueError, match="index") as caught:
        resolve_shards(index)
    assert is_one_short_line(str(caught.value))


@pytest.mark.parametrize("length", [255, 256, 4095, 4096, 100_000])
def test_a_path_that_is_too_long_is_an_error_of_the_system(tmp_path: Path, length: int) -> None:
    path = str(tmp_path / "x").ljust(length, "x")
    with pytest.raises(OSError, match=r"File name too long|No such file"):
        prefetch_files([path])
    done = run("warm", path[:100_000])
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_what_the_log_says_of_a_hostile_name_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_file(tmp_path / (HOSTILE + ".safetensors"), MIB)
    with caplog.at_level(logging.DEBUG, logger="shardahead"):
        handle = prefetch_files([path])
        os.truncate(path, 10)
        handle.stop()
        report = handle.report()
    assert caplog.messages
    assert all(is_one_short_line(message) for message in caplog.messages)
    assert report.text().isprintable()
    assert (report.incomplete_reason() or "").isprintable()


def test_a_mount_point_that_is_hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount(**{**vars(_any_mount()), "mount_point": HOSTILE})
    monkeypatch.setattr("shardahead.node.page_keeping.mount_of", lambda _path: mount)
    assert is_one_short_line(keeping_reason("uncached", "x"))


def _any_mount() -> Mount:
    from shardahead import mount_of

    return mount_of("/")


def test_a_board_folder_that_is_no_text(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDAHEAD_BOARD_FOLDER", "/no/" + HOSTILE)
    handle = prefetch_files(files)
    handle.wait()
    report = handle.report()
    assert report.partition == "block"
    assert "No such file" in report.partition_reason
    assert is_one_short_line(report.partition_reason)
    assert json.loads(json.dumps(report.to_dict()))["partition"] == "block"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_writes_json_and_no_control_characters(tmp_path: Path, command: str) -> None:
    write_file(tmp_path / (HOSTILE + ".safetensors"), 10)
    done = run(command, "--json", tmp_path)
    (found,) = done.stdout.splitlines()
    assert json.loads(found)
    assert found.isascii()
    for argument in (HOSTILE, "--" + HOSTILE):
        done = run(command, argument)
        assert done.returncode != 0
        assert all(line.isprintable() for line in done.stderr.splitlines())
        assert "\x1b" not in done.stderr


# ---- what is not run ----


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pth", ".gguf"])
def test_nothing_in_a_checkpoint_is_unpickled(tmp_path: Path, suffix: str) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(pickle.dumps(Evil(marker)))
    pickle.loads(path.read_bytes())
    marker.rmdir()  # it works
    handle = prefetch_files([path])
    handle.wait()
    assert handle.report().complete
    for command in COMMANDS:
        refused = command == "warm" and suffix == ".gguf"  # as what it is: no GGUF file
        assert run(command, path).returncode == int(refused)
    assert not marker.exists()


# ---- another user of the node ----

PLANT = """
import fcntl, os, struct, sys, time
path, uid = sys.argv[1], int(sys.argv[2])
os.setgid(uid); os.setuid(uid)
what = sys.argv[3]
if what == "file":
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    os.fchmod(descriptor, 0o666)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
elif what == "symlink":
    os.symlink(sys.argv[4], path)
elif what == "hard link":
    try:
        os.link(sys.argv[4], path)
    except PermissionError:
        print("refused", flush=True)
        sys.exit()
elif what == "fifo":
    os.mkfifo(path, 0o666)
else:
    os.mkdir(path, 0o777)
print("planted", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("what", ["file", "symlink", "hard link", "fifo", "folder"])
def test_a_board_that_another_user_has_planted(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    boards = open_folder / "boards"
    boards.mkdir()
    boards.chmod(0o1777)  # as /dev/shm
    monkeypatch.setenv("SHARDAHEAD_BOARD_FOLDER", str(boards))
    path = write_file(tmp_path / "a.safetensors", MIB)
    victim = write_file(open_folder / "private", 100)
    victim.chmod(0o600)
    with prefetch_files([path], consumer=True) as handle:
        (board,) = boards.iterdir()
        assert stat.S_IMODE(board.stat().st_mode) == 0o600
        assert path.name not in board.name
        handle.stop()
    board.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", PLANT, str(board), str(NOBODY), what, str(victim)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() == "refused\n":
            pytest.skip("this kernel lets no one link files of others (protected_hardlinks)")
        handle = prefetch_files([path])
        handle.wait()
        report = handle.report()
        assert report.complete
        assert report.partition == "block"
        assert str(board) in report.partition_reason
        assert victim.stat().st_size == 100
    finally:
        process.communicate("")
