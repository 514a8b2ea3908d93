"""learn=: what a load touched is all that the next one like it brings in, on any mount; and
whatever is wrong with what was learned, every load gives the right bytes.

Judged by the bytes that the storage served. A grain is 64 KiB, and a fault maps as much around it:
so much more may count as touched at both ends of each part.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import KIB, MIB, MakeMount, finish, result_of, run_python, start_python
from learned_support import (
    PART_BYTES,
    SHARDS,
    SIZE,
    TENSOR_BYTES,
    TENSORS,
    expected,
    load,
    profile_in,
    start_rank,
    warnings,
    write_checkpoint,
)

import shardahead
from shardahead.command import cli

WAYS = ("iterator", "beside", "held")
# At both ends of each part, and for the headers.
SLACK_BYTES = (SHARDS * TENSORS + SHARDS) * 2 * 128 * KIB


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("learned") / "m")


@pytest.mark.parametrize("how", WAYS)
def test_the_second_load_brings_in_what_the_first_touched(
    how: str, checkpoint: Path, profiles: Path, make_mount: MakeMount
) -> None:
    right = expected(checkpoint, 0)
    first_mount, second_mount = make_mount(checkpoint), make_mount(checkpoint)
    first = load(how, first_mount.mountpoint, learn=str(profiles))
    assert (first["sha256"], first["learned"]) == (right, "recorded")
    recorded = profile_in(profiles)
    assert PART_BYTES <= recorded.touched_bytes <= PART_BYTES + SLACK_BYTES
    assert recorded.who == "rank 0 of 8"

    before = second_mount.counters().bytes_served
    second = load(how, second_mount.mountpoint, learn=str(profiles))
    second_mount.wait_until_idle()
    served = second_mount.counters().bytes_served - before
    assert (second["sha256"], second["learned"]) == (right, "used")
    assert second["planned_bytes"] == recorded.touched_bytes
    assert PART_BYTES <= served <= 1.1 * (PART_BYTES + SLACK_BYTES)
    assert profile_in(profiles).touched_bytes == recorded.touched_bytes
    assert warnings(first) == warnings(second) == []


@pytest.mark.parametrize("how", WAYS)
def test_another_ranks_profile_gives_the_right_bytes_and_is_replaced(
    how: str, checkpoint: Path, profiles: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(checkpoint)
    load(how, mount.mountpoint, 0, learn=str(profiles), learn_key="one")
    mount.evict_all()
    second = load(how, mount.mountpoint, 5, learn=str(profiles), learn_key="one")
    assert (second["sha256"], second["learned"]) == (expected(checkpoint, 5), "wrong")
    for told in warnings(second):  # it comes at the end, or after it
        assert "is wrong" in told
    mount.evict_all()
    third = load(how, mount.mountpoint, 5, learn=str(profiles), learn_key="one")
    assert (third["sha256"], third["learned"]) == (expected(checkpoint, 5), "used")
    found = profile_in(profiles)
    assert found.who == "key one"
    assert found.touched_bytes <= PART_BYTES + SLACK_BYTES


def test_ranks_of_one_node_and_one_folder(
    checkpoint: Path, profiles: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(checkpoint)
    for learned in ("recorded", "used"):
        mount.evict_all()
        ranks = [
            start_rank(
                "iterator",
                mount.mountpoint,
                rank,
                learn=str(profiles),
                env={"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "4"},
            )
            for rank in range(4)
        ]
        found = [result_of(rank) for rank in ranks]
        assert [each["learned"] for each in found] == [learned] * 4
        assert [each["sha256"] for each in found] == [expected(checkpoint, r) for r in range(4)]
        assert len(os.listdir(profiles)) == 4


def test_names_narrow_further(checkpoint: Path, profiles: Path, make_mount: MakeMount) -> None:
    mount = make_mount(checkpoint)
    load("iterator", mount.mountpoint, learn=str(profiles))
    mount.evict_all()
    found = load("iterator", mount.mountpoint, learn=str(profiles), names=["0.1"])
    part_bytes = TENSOR_BYTES // SIZE
    assert part_bytes <= found["planned_bytes"] <= part_bytes + SLACK_BYTES


def test_in_mode_pread_what_was_taken_counts(
    checkpoint: Path, profiles: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(checkpoint)
    right = expected(checkpoint, 0)
    found = load("iterator", mount.mountpoint, learn=str(profiles), mode="pread")
    assert found["sha256"] == right
    assert profile_in(profiles).touched_bytes == sum(
        path.stat().st_size for path in checkpoint.iterdir()
    )
    # It says less than a load through mappings does, which replaces it, and not the other way.
    load("iterator", mount.mountpoint, learn=str(profiles))
    assert profile_in(profiles).touched_bytes <= PART_BYTES + SLACK_BYTES
    load("iterator", mount.mountpoint, learn=str(profiles), mode="pread")
    assert profile_in(profiles).touched_bytes <= PART_BYTES + SLACK_BYTES


def test_nothing_is_learned_where_prefetching_is_off(checkpoint: Path, profiles: Path) -> None:
    off = {"SHARDAHEAD_DISABLE": "1", "SHARDAHEAD_LEARN": str(profiles)}
    for how in WAYS:
        assert load(how, checkpoint, env=off)["sha256"] == expected(checkpoint, 0)
    assert load("iterator", checkpoint, learn=str(profiles), prefetch=False)["learned"] is None
    assert load("iterator", checkpoint)["learned"] == "no"
    assert os.listdir(profiles) == []


def test_the_variable_turns_it_on(checkpoint: Path, profiles: Path) -> None:
    learning = {"SHARDAHEAD_LEARN": str(profiles)}
    assert load("iterator", checkpoint, env=learning)["learned"] == "recorded"
    assert load("iterator", checkpoint, env=learning)["learned"] == "used"


def test_a_loader_that_reads_past_the_mappings_leaves_no_trace(
    checkpoint: Path, profiles: Path
) -> None:
    script = """
import json, os, sys, logging, shardahead
told = []
class Kept(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())
logging.getLogger("shardahead").addHandler(Kept())
for _ in range(2):
    with shardahead.prefetching(sys.argv[1], learn=sys.argv[2]) as handle:
        for shard in handle.shards:
            descriptor = os.open(shard.path, os.O_RDONLY)
            while os.pread(descriptor, 1 << 20, 0) and handle.done is False:
                pass
            os.close(descriptor)
import atexit
atexit._run_exitfuncs()
print(json.dumps(told))
"""
    [told] = run_python(script, checkpoint, profiles)
    assert "left no trace" in told
    assert os.listdir(profiles) == []


@pytest.mark.parametrize("what", ["missing", "a file", "read-only", "full"])
def test_a_folder_that_takes_nothing_is_said_once(
    what: str, checkpoint: Path, tmp_path: Path, profiles: Path
) -> None:
    folder = tmp_path / "missing"
    if what == "a file":
        folder.touch()
    elif what == "read-only":
        folder = Path("/proc/self")
    elif what == "full":
        folder = profiles
    limit = {"LIMIT": "0"} if what == "full" else {}
    process = start_rank("iterator", checkpoint, learn=str(folder), env=limit)
    done = finish(process)
    found = json.loads(done.stdout)
    assert found["sha256"] == expected(checkpoint, 0)
    assert found["learned"] == ("no" if what in ("missing", "a file") else "recorded")
    told = done.stderr.splitlines()
    assert len(told) == 1, told
    assert ("is no folder" if found["learned"] == "no" else "no profile is written to") in told[0]
    assert os.listdir(profiles) == []


def test_hostile_profiles_are_passed_over(checkpoint: Path, profiles: Path) -> None:
    right = expected(checkpoint, 0)
    load("iterator", checkpoint, learn=str(profiles))
    [name] = os.listdir(profiles)
    path = profiles / name
    for content in (b"", b"{", path.read_bytes()[:-20], b"x" * (2 * MIB)):
        path.write_bytes(content)
        found = load("iterator", checkpoint, learn=str(profiles))
        assert (found["sha256"], found["learned"]) == (right, "recorded")
        [told] = warnings(found)
        assert "is passed over" in told
        profile_in(profiles)  # it was put right
    path.unlink()
    os.mkfifo(path)
    found = load("beside", checkpoint, learn=str(profiles))
    assert found["sha256"] == right
    assert "is no regular file" in warnings(found)[0]


def test_a_rank_that_is_killed_leaves_the_profile_as_it_was(
    checkpoint: Path, profiles: Path
) -> None:
    load("iterator", checkpoint, learn=str(profiles))
    before = profile_in(profiles)
    script = """
import os, signal, sys
import shardahead
from shardahead.prefetch import profile_file

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

profile_file.os.rename = killed
for name, tensor in shardahead.safetensors_weights_iterator(sys.argv[1], learn=sys.argv[2]):
    tensor.sum()
    del tensor
"""
    env = {"RANK": "0", "WORLD_SIZE": str(SIZE)}
    done = finish(start_python(script, checkpoint, profiles, env=env))
    assert done.returncode == -signal.SIGKILL
    [left] = profiles.glob(".*.unfinished")
    left.unlink()
    assert profile_in(profiles) == before


def test_a_load_that_is_broken_off_is_not_recorded(checkpoint: Path, profiles: Path) -> None:
    with shardahead.safetensors_weights_iterator(checkpoint, learn=profiles) as weights:
        next(weights)
    with pytest.raises(ZeroDivisionError), shardahead.prefetching(checkpoint, learn=profiles):
        raise ZeroDivisionError
    time.sleep(0.2)
    assert os.listdir(profiles) == []


def test_the_order_of_first_touch_is_the_order_of_the_next_load(
    checkpoint: Path, profiles: Path
) -> None:
    backwards = """
import json, sys, time, shardahead
from safetensors import safe_open
with shardahead.prefetching(sys.argv[1], learn=sys.argv[2]) as handle:
    paths = [shard.path for shard in handle.shards]
    for path in sorted(paths, reverse=True):
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():
                shard.get_tensor(name).sum()
            time.sleep(0.3)
print(json.dumps(paths))
"""
    paths = run_python(backwards, checkpoint, profiles)
    assert profile_in(profiles).order == (1, 0)
    assert run_python(backwards, checkpoint, profiles) == paths[::-1]
    assert run_python(backwards, checkpoint, profiles) == paths[::-1]


def test_an_error_in_what_is_wanted_is_an_oserror(
    checkpoint: Path,
    profiles: Path,
    make_mount: MakeMount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mount = make_mount(checkpoint)
    load("iterator", mount.mountpoint, learn=str(profiles))
    mount.evict_all()
    wanted = profile_in(profiles).ranges[1][-1]
    mount.bad("model-1.safetensors", wanted[0] + 128 * KIB, 4 * KIB)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(SIZE))
    weights = shardahead.safetensors_weights_iterator(mount.mountpoint, learn=profiles)
    with pytest.raises(OSError) as caught:
        for _ in weights:
            pass
    assert str(caught.value.filename).endswith("model-1.safetensors")


def test_the_report_of_a_load_has_what_was_touched(
    checkpoint: Path, profiles: Path, tmp_path: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(checkpoint).mountpoint
    reports = tmp_path / "reports"
    for learned in ("recorded", "used"):
        load("iterator", mount, learn=str(profiles), env={"SHARDAHEAD_REPORT": str(reports)})
        [document] = [json.loads(path.read_bytes()) for path in reports.iterdir()]
        shutil.rmtree(reports)
        found = document["learned"]
        assert found["learned"] == document["report"]["learned"] == learned
        assert PART_BYTES <= found["touched_bytes"] <= PART_BYTES + SLACK_BYTES
        if learned == "recorded":
            assert found["wanted_bytes"] is None
            assert found["for_nothing_share"] > 0.8
        else:
            assert found["wanted_bytes"] == found["brought_in_bytes"]
            assert found["for_nothing_share"] < 0.1


def test_plan_shows_a_profile(
    checkpoint: Path, profiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load("iterator", checkpoint, learn=str(profiles))
    [path] = profiles.iterdir()
    assert cli.main(["plan", "--learned", str(path), str(checkpoint)]) == 0
    shown = capsys.readouterr().out
    assert "learned: rank 0 of 8 touched" in shown
    assert cli.main(["plan", "--json", "--learned", str(path), str(checkpoint)]) == 0
    document = json.loads(capsys.readouterr().out)
    [found] = document["learned"]
    assert found["wanted_bytes"] == profile_in(profiles).touched_bytes
    assert len(found["ranges"]) == len(document["files"]) == SHARDS
    for wrong, status in ((tmp_path / "missing", 1), (checkpoint / "model-0.safetensors", 2)):
        assert cli.main(["plan", "--learned", str(wrong), str(checkpoint)]) == status
        assert str(wrong) in capsys.readouterr().err


@pytest.mark.parametrize("value", [7, "", "a\0b", b"\0"])
def test_wrong_folders_are_refused(value: Any, checkpoint: Path) -> None:
    with pytest.raises((TypeError, ValueError), match="learn"):
        shardahead.safetensors_weights_iterator(checkpoint, learn=value)
    with (
        pytest.raises((TypeError, ValueError), match="learn"),
        shardahead.prefetching(checkpoint, learn=value),
    ):
        pass


@pytest.mark.parametrize("value", [7, "", "x" * 201])
def test_wrong_keys_are_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="learn_key"):
        shardahead.Options(learn_key=value)
