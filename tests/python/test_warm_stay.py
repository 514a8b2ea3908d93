"""--keep, --lock, --follow and --metrics-file in whole: a process that stays, files that change
under it, and what the kernel has of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import stay_support
from conftest import (
    MIB,
    clean_environment,
    eventually,
    finish,
    make_cold,
    resident_bytes,
    start_python,
    write_file,
)
from stay_support import (
    OFTEN,
    SIZE_BYTES,
    SOON,
    Staying,
    is_warm,
    metrics,
    require_lockable,
    shards,
    staying,
)
from terminal_support import COMMAND

folder = stay_support.folder

# ---- keeping ----


def test_a_keeper_stays_with_its_files_open_and_ends_when_it_is_told(folder: Path) -> None:
    with staying("--keep", "--json", folder) as keeper:
        keeper.until_it_stays()
        keeper.until(lambda: is_warm(*shards(folder)), "it does not come")
        keeper.until(lambda: all(map(keeper.opens, shards(folder))), "it keeps nothing open")
        document = keeper.document()
    assert document["reason"] is None
    assert document["keep"]["size_bytes"] == 2 * SIZE_BYTES
    assert document["follow"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_are_told_by_the_status(folder: Path, number: signal.Signals) -> None:
    with staying("--keep", *OFTEN, folder) as keeper:
        assert keeper.process.stdout is not None
        assert keeper.process.stdout.readline().startswith("warm: ")
        keeper.until(lambda: is_warm(*shards(folder)), "it does not come")
        assert keeper.end(number).returncode == 128 + number


def test_what_is_evicted_comes_back(folder: Path) -> None:
    with staying("--keep", "--json", *OFTEN, folder) as keeper:
        keeper.until_it_stays()
        keeper.until(lambda: is_warm(*shards(folder)), "it does not come")
        keeper.until(lambda: all(map(keeper.opens, shards(folder))), "it keeps nothing open")
        make_cold(shards(folder)[1])
        keeper.until(lambda: is_warm(*shards(folder)), "it does not come back")
        keeper.until(
            lambda: metrics(keeper.file)["shardahead_keep_restored_bytes_total"] >= SIZE_BYTES,
            "it is not counted",
        )
        document = keeper.document()
    assert document["keep"]["restored_bytes"] >= SIZE_BYTES
    assert document["keep"]["evicted_bytes"] > 0  # as far as it was when it was looked at


def test_a_keeper_does_not_fight_over_memory(folder: Path) -> None:
    """What does not fit is not brought in, once or again, and that is said once."""
    env = {**clean_environment(), "SHARDAHEAD_MEMORY_BUDGET_BYTES": "64KiB"}
    words = ["--block-size", "64KiB", "--json", *OFTEN]
    with staying("--keep", *words, folder, env=env) as keeper:
        assert keeper.process.stderr is not None
        assert "memory is short" in keeper.process.stderr.readline()
        make_cold(*shards(folder))
        with pytest.raises(subprocess.TimeoutExpired):
            keeper.process.wait(1)
        assert sum(map(resident_bytes, shards(folder))) == 0
        done = keeper.end()
    assert done.returncode == 1
    assert "memory is short" not in done.stderr
    document = json.loads(done.stdout)
    assert "are not resident" in document["reason"]
    assert document["keep"]["backed_off"]
    assert document["keep"]["restored_bytes"] == 0


@pytest.mark.parametrize("another_comes", [True, False])
def test_a_shard_that_goes_is_kept_no_longer_and_said(folder: Path, another_comes: bool) -> None:
    with staying("--keep", "--json", *OFTEN, folder) as keeper:
        keeper.until_it_stays()
        keeper.until(lambda: all(map(keeper.opens, shards(folder))), "it keeps nothing open")
        if another_comes:
            write_file(folder / "new", SIZE_BYTES + 1)
            os.replace(folder / "new", shards(folder)[0])
        else:
            shards(folder)[0].unlink()
        keeper.until(lambda: not any("a-1" in name for name in keeper.opened()), "it is kept")
        document = keeper.document(status=1)
    assert "changed or went, and is kept no longer: --keep --follow" in document["reason"]


# What is looked at after the first prefetch, before it stays.
FOUND = f"""
import errno
from shardahead.command import commands
def found(handle):
    if WORDS:
        raise OSError(errno.EIO, "Input/output error", handle.shards[0].path)
    return 0
commands._resident_after = found
{COMMAND}
"""


@pytest.mark.parametrize("words", ["Input/output error", ""])
@pytest.mark.parametrize("option", ["--keep", "--follow"])
def test_what_the_first_prefetch_found_is_told_at_the_end(
    folder: Path, option: str, words: str
) -> None:
    script = FOUND.replace("WORDS", repr(words))
    file = folder / "warm.prom"
    process = start_python(script, "warm", option, "--json", "--metrics-file", file, folder)
    eventually(
        lambda: file.exists() and metrics(file)["shardahead_warm_staying"], "it does not stay"
    )
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    reason = json.loads(done.stdout)["reason"]
    if option == "--keep" and not words:  # it looks itself at what stays
        assert (done.returncode, reason) == (0, None)
    else:
        assert done.returncode == 1
        assert (words or "stayed in the page cache") in reason


# ---- locking ----


def test_what_is_locked_cannot_be_evicted(folder: Path) -> None:
    require_lockable()
    with staying("--keep", "--lock", "--json", *OFTEN, folder) as keeper:
        keeper.until_it_stays()
        keeper.until(lambda: keeper.locked_bytes() >= 2 * SIZE_BYTES, "it locks nothing")
        for path in shards(folder):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert is_warm(*shards(folder))
        document = keeper.document()
    assert document["keep"]["locked_bytes"] == 2 * SIZE_BYTES
    assert document["keep"]["restored_bytes"] == 0


# ---- following ----


def test_a_checkpoint_that_is_written_shard_by_shard(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with staying("--follow", "--json", *SOON, folder) as follower:
        folder.mkdir()
        names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
        for name in names:
            path = write_file(folder / name, SIZE_BYTES)
            make_cold(path)
            follower.until(lambda: is_warm(*shards(folder)), f"{name} does not come")
        eventually(lambda: is_warm(*shards(folder)), "it does not come")
        document = follower.document()
    assert document["reason"] is None
    assert document["follow"]["shards"] == 3


def test_a_file_whose_header_promises_more_is_no_error(folder: Path) -> None:
    """Half of a shard: the rest comes later."""
    path = shards(folder)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: MIB // 2])
    make_cold(path)
    with staying("--follow", "--json", *SOON, folder) as follower:
        follower.until_it_stays()
        follower.until(lambda: is_warm(*shards(folder)), "the first half does not come")
        with path.open("ab") as file:
            file.write(whole[MIB // 2 :])
        make_cold(path)
        follower.until(lambda: is_warm(*shards(folder)), "the second half does not come")
        document = follower.document()
    assert document["reason"] is None
    assert document["follow"]["size_bytes"] == 2 * SIZE_BYTES


def test_a_folder_that_another_takes_the_place_of(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in ("b-1.safetensors", "b-2.safetensors"):
        make_cold(write_file(other / name, SIZE_BYTES))
    with staying("--follow", "--keep", "--json", *SOON, *OFTEN, folder) as follower:
        follower.until_it_stays()
        follower.until(lambda: all(map(follower.opens, shards(folder))), "it keeps nothing open")
        folder.rename(tmp_path / "old")
        other.rename(folder)
        follower.until(lambda: is_warm(*shards(folder)), "what came does not come")
        follower.until(lambda: all(map(follower.opens, shards(folder))), "it is not kept")
        follower.until(
            lambda: not any("/old/" in name for name in follower.opened()), "what went is kept"
        )
        document = follower.document()
    assert document["reason"] is None
    assert document["follow"]["shards"] == 2


def test_it_ends_by_itself_when_nothing_has_changed_for_a_while(folder: Path) -> None:
    follower = Staying("--follow", "--follow-idle", "0.3", "--json", *SOON, folder)
    done = finish(follower.process)
    assert done.returncode == 0, done.stderr
    assert is_warm(*shards(folder))


def test_it_does_not_end_by_itself_before_all_shards_are_there(tmp_path: Path) -> None:
    write_file(tmp_path / "model-00001-of-00002.safetensors", MIB)
    with staying("--follow", "--follow-idle", "0.1", "--json", *SOON, tmp_path) as follower:
        follower.until_it_stays()
        follower.until(lambda: is_warm(*shards(tmp_path)), "it does not come")
        with pytest.raises(subprocess.TimeoutExpired):
            follower.process.wait(1)
        document = follower.document(status=1)
    assert "1 of the 2 shards missing, this one" in document["reason"]


def test_a_signal_while_it_waits_for_the_first_shard(tmp_path: Path) -> None:
    with staying("--follow", *SOON, tmp_path / "never") as follower:
        assert follower.process.stderr is not None
        assert "waiting for the rest" in follower.process.stderr.readline()
        done = follower.end()
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout == ""


# ---- telling others ----


def test_the_figures_of_a_keeper(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures" / "warm.prom"
    file.parent.mkdir()
    with staying("--keep", "--metrics-file", file, "--json", *OFTEN, folder) as keeper:
        keeper.file.symlink_to(file)
        keeper.until(file.exists, "nothing is written at the start")
        assert metrics(file)["shardahead_warm_running"] == 1
        keeper.until_it_stays()
        document = keeper.document()
    assert document["metrics_file"] == str(file)
    found = metrics(file)
    assert found["shardahead_warm_running"] == found["shardahead_warm_staying"] == 0
    assert found["shardahead_warm_complete"] == 1
    assert found["shardahead_warm_size_bytes"] == 2 * SIZE_BYTES
    assert found["shardahead_warm_read_bytes_total"] == document["read_bytes"] > 0
    assert os.listdir(file.parent) == ["warm.prom"]


def test_figures_that_cannot_be_written_are_an_error_before_anything_is_read(folder: Path) -> None:
    done = finish(Staying("--metrics-file", "/not/there/warm.prom", folder).process)
    assert done.returncode == 1
    assert done.stderr == (
        "shardahead: --metrics-file '/not/there/warm.prom': No such file or directory\n"
    )
    assert sum(map(resident_bytes, shards(folder))) == 0


# The folder of the file is on a server that does not answer.
HANGING = f"""
import threading
from shardahead.command import metrics_file
def write_whole(*_):
    print("it writes", flush=True)
    threading.Event().wait()
metrics_file.write_whole = write_whole
{COMMAND}
"""


def test_a_signal_while_the_figures_cannot_be_written(folder: Path) -> None:
    process = start_python(HANGING, "warm", "--metrics-file", folder / "warm.prom", folder)
    assert process.stdout is not None
    assert process.stdout.readline() == "it writes\n"
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 128 + signal.SIGTERM


def test_a_warm_that_fails_says_so_in_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "warm.prom"
    done = finish(Staying("--metrics-file", file, tmp_path / "none").process)
    assert done.returncode == 1
    found = metrics(file)
    assert (found["shardahead_warm_running"], found["shardahead_warm_complete"]) == (0, 0)
