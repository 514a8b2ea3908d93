"""benchmarks/filesystems: what is judged, its parts alone, and two filesystems from end to end.

The rest of them needs packages, and is `make filesystems`. Nothing is judged by a clock.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_SECONDS, MIB, REPOSITORY, write_file

sys.path.insert(0, str(REPOSITORY / "benchmarks" / "filesystems"))
import s3_server
from delayed_wire import at_rate
from judged import (
    AFTER_WARM,
    ITERATORS,
    PLAIN,
    PREFETCHING,
    WARM,
    Load,
    Row,
    Setting,
    broken_rules,
    table,
)
from loop_device import attached
from packages import PackageRoot
from stage import NotUpError, Stage, wait_until

MATRIX = REPOSITORY / "benchmarks" / "filesystems"
SETTING = Setting(100 * MIB, rate_mb_per_s=100, round_trip_ms=4)
GOOD = [
    Load(PLAIN, 2, 2.0, 100 * MIB),
    Load(ITERATORS, 2, 1.5, 100 * MIB),
    Load(PREFETCHING, 2, 3.1, 102 * MIB),
    Load(WARM, 2, 1.8, 100 * MIB, exit_status=0, complete=True),
    Load(AFTER_WARM, 2, 0.2, 2 * MIB),
]
RUN_SECONDS = 600


def row_with(way: str, **changes: Any) -> Row:
    loads = [replace(load, **changes) if load.way == way else load for load in GOOD]
    return Row("one", mount={"type": "fuse.one"}, counted="the wire", loads=loads)


def only_rule_broken(way: str, **changes: Any) -> str:
    (line,) = broken_rules(row_with(way, **changes), SETTING)
    return line


def test_a_load_may_take_a_tenth_and_a_second_more() -> None:
    assert broken_rules(row_with(PLAIN), SETTING) == []
    assert broken_rules(row_with(ITERATORS, seconds=3.19), SETTING) == []
    slow = row_with(ITERATORS, seconds=3.21)
    assert broken_rules(slow, SETTING) == ["iterators: 3.2 s, plain 2.0 s, by 2"]
    assert broken_rules(slow, SETTING, by_clock=False) == []
    assert broken_rules(row_with(PLAIN, seconds=20.0), SETTING) == []


def test_more_bytes_than_plain_are_told_although_no_clock_judges() -> None:
    assert broken_rules(row_with(PREFETCHING, served_bytes=103 * MIB), SETTING) == []
    more = row_with(PREFETCHING, served_bytes=104 * MIB)
    expected = ["prefetching: 1.04 times the bytes of plain, by 2"]
    assert broken_rules(more, SETTING, by_clock=False) == expected
    # Plain may read as often as it likes, and ours as often as that.
    often = [replace(load, served_bytes=9 * load.served_bytes) for load in GOOD[:3]]
    assert broken_rules(Row("one", loads=often), SETTING) == []


def test_a_warm_that_said_complete_is_held_to_it() -> None:
    assert "0.04 of the bytes were read again" in only_rule_broken(AFTER_WARM, served_bytes=4 * MIB)
    again = replace(GOOD[4], served_bytes=100 * MIB)
    for honest in (replace(GOOD[3], exit_status=1), replace(GOOD[3], complete=False)):
        assert broken_rules(Row("one", loads=[*GOOD[:3], honest, again]), SETTING) == []


def test_what_failed_or_was_not_cold_is_told() -> None:
    assert "WRONG BYTES" in only_rule_broken(ITERATORS, problem="WRONG BYTES: rank 0")
    assert "more than 70 s" in only_rule_broken(ITERATORS, seconds=None, problem="more than 70 s")
    lukewarm = only_rule_broken(ITERATORS, served_bytes=96 * MIB)
    assert lukewarm.startswith("iterators: was not cold, 0.96")
    assert broken_rules(Row("one", problem="the server died"), SETTING) == ["the server died"]
    assert broken_rules(Row("one", skipped="no package"), SETTING) == []


def test_rules_are_of_medians() -> None:
    loads = [*GOOD, *(replace(GOOD[1], seconds=seconds) for seconds in (1.4, 90.0))]
    assert broken_rules(Row("one", loads=loads), SETTING) == []


def test_the_table_has_a_line_for_each_number_of_ranks() -> None:
    row = row_with(ITERATORS, served_bytes=150 * MIB)
    row.loads += [replace(load, ranks=1) for load in GOOD]
    row.loads.append(Load(PLAIN, 4, None, 0, "more than 70 s"))
    lines = table([row, Row("skipped", skipped="no package")], SETTING).splitlines()[2:]
    assert lines == [
        "| one | fuse.one | 2 | 2.00, 1.00 | 1.50 (0.75; 1.50) | 3.10 (1.55; 1.02) "
        "| 0, complete, 1.80 | 0.20, 0.02 | iterators: 1.50 times the bytes of plain |",
        "| one | fuse.one | 1 | 2.00, 1.00 | 1.50 (0.75; 1.00) | 3.10 (1.55; 1.02) "
        "| 0, complete, 1.80 | 0.20, 0.02 |  |",
        "| one | fuse.one | 4 | no end |  |  |  |  | plain: more than 70 s |",
    ]


def test_a_load_may_take_ten_times_the_wire_and_a_minute() -> None:
    assert SETTING.limit_s == pytest.approx(10 * (100 * MIB / 100e6 + 0.004) + 60)


def test_a_wire_carries_no_faster_than_its_rate() -> None:
    due_of = at_rate(1e6)
    assert due_of(1000, 5.0) == pytest.approx(5.001)
    assert due_of(1000, 5.0) == pytest.approx(5.002)
    assert due_of(1000, 9.0) == pytest.approx(9.001)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "a.safetensors").write_bytes(bytes(range(100)))
    (tmp_path / "b.json").write_bytes(b"{}")
    s3_server.Handler.folder = tmp_path
    server = ThreadingHTTPServer(("127.0.0.1", 0), s3_server.Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{s3_server.BUCKET}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=10-19", 10, 19),
        ("bytes=90-", 90, 99),
        ("bytes=-5", 95, 99),
        ("bytes=50-999", 50, 99),
    ],
)
def test_the_bucket_gives_ranges(bucket: str, asked: str, first: int, last: int) -> None:
    request = urllib.request.Request(f"{bucket}/a.safetensors", headers={"Range": asked})
    with urllib.request.urlopen(request, timeout=HANG_SECONDS) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/100"
        assert answer.read() == bytes(range(first, last + 1))


def test_the_bucket_lists_and_gives_whole_objects(bucket: str) -> None:
    with urllib.request.urlopen(f"{bucket}?list-type=2&prefix=a", timeout=HANG_SECONDS) as answer:
        text = answer.read().decode()
    assert "<Key>a.safetensors</Key>" in text and "<Size>100</Size>" in text
    assert "b.json" not in text
    with urllib.request.urlopen(f"{bucket}/a.safetensors", timeout=HANG_SECONDS) as answer:
        assert answer.status == 200 and answer.read() == bytes(range(100))
        assert answer.headers["ETag"].endswith('-1"'), "no MD5"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{bucket}/../passwd", timeout=HANG_SECONDS)


def test_packages_that_are_there_are_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    root = PackageRoot(tmp_path / "root")
    assert root.bring([]) == {}
    names = ("dash", "fuse3", "sshfs")
    stanzas = [f"Package: {name}\nVersion: 1-{name}\nStatus: installed\n" for name in names]
    (root.path / "var/lib/dpkg/status").write_text("\n".join(stanzas))
    assert root.versions()["sshfs"] == "1-sshfs"
    assert root.bring(["sshfs"]) == {}
    with pytest.raises(RuntimeError, match="no apt-get here"):
        root.bring(["sshfs", "rclone"])


LOOP_HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from loop_device import attached
with attached(Path(sys.argv[2])) as device:
    print(device, flush=True)
    sys.stdin.read()
"""


def test_a_loop_device_ends_with_who_made_it(tmp_path: Path) -> None:
    image = write_file(tmp_path / "image", MIB)
    if os.geteuid() != 0 or not os.access("/dev/loop-control", os.R_OK | os.W_OK):
        pytest.skip("no loop devices here")
    with attached(image) as device:
        assert Path(device).read_bytes() == image.read_bytes()
    holder = subprocess.Popen(
        [sys.executable, "-c", LOOP_HOLDER, str(MATRIX), str(image)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        name = Path(holder.stdout.readline().strip()).name
        assert backing_of(name) == str(image)
        holder.kill()
    gone = HANG_SECONDS + time.monotonic()
    while backing_of(name) == str(image) and time.monotonic() < gone:
        time.sleep(0.01)
    assert backing_of(name) != str(image)


def backing_of(loop: str) -> str:
    try:
        return Path(f"/sys/block/{loop}/loop/backing_file").read_text().strip()
    except FileNotFoundError:
        return ""


def test_a_program_that_ends_its_process_group_ends_no_one_else(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "root", tmp_path / "data", tmp_path / "work", 100, 4)
    with stage.started(["sh", "-c", "kill -TERM 0"], "server") as server:
        assert server.wait(HANG_SECONDS) == -signal.SIGTERM


def test_a_program_that_ends_leaves_its_last_words(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "root", tmp_path / "data", tmp_path / "work", 100, 4)
    with (
        stage.started(["sh", "-c", "echo one; echo no such key >&2"], "server") as server,
        pytest.raises(NotUpError, match=r"^no such key$"),
    ):
        wait_until(lambda: False, server, lambda: stage.said("server"))


def test_a_forked_rank_that_fails_leaves_its_words_and_its_status(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    sys.path[:0] = [str(MATRIX.parent / name) for name in ("compare", "demo")]
    from forked import ForkedRank

    rank = ForkedRank(tmp_path / "no-job.json", 0, {"RANK": "0"}, tmp_path / "log")
    with rank.stdin, rank.stdout:
        assert rank.stdout.readline() == ""
    assert rank.wait(HANG_SECONDS) == 1
    assert rank.poll() == 1
    assert "no-job.json" in (tmp_path / "log").read_text().splitlines()[-1]


# ---- from end to end: what needs no packages ----


def matrix_command(folder: Path, *arguments: str) -> list[str]:
    places = ["--cache", str(folder / "cache"), "--json", str(folder / "rows.json")]
    small = ["--size-mib", "32", "--shards", "2", "--no-clock"]
    return [sys.executable, str(MATRIX / "filesystems.py"), *places, *small, *arguments]


def needs_the_matrix() -> None:
    import slowfs

    if os.geteuid() != 0:
        pytest.skip("only root has namespaces of its own")
    if reason := slowfs.unavailable_reason():
        pytest.skip(f"no slowfs here: {reason}")
    pytest.importorskip("safetensors")
    pytest.importorskip("xxhash")


@pytest.mark.timeout(RUN_SECONDS + 60)
@pytest.mark.parametrize(
    # Without kept pages ranks share what they read only if they start together.
    ("name", "ranks", "keeps"),
    [("overlay", 2, True), ("overlay-no_keep_cache", 1, False)],
)
def test_an_overlay_from_end_to_end(tmp_path: Path, name: str, ranks: int, keeps: bool) -> None:
    needs_the_matrix()
    line = matrix_command(tmp_path, "--ranks", str(ranks), name)
    done = subprocess.run(line, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    if "nothing was measured" in done.stderr or " skipped: " in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "rows.json").read_text())
    size_bytes = document["setting"]["checkpoint_bytes"]
    (row,) = document["rows"]
    assert row["mount"]["type"] == "overlay"
    loads = {load["way"]: load for load in row["loads"]}
    assert list(loads) == [PLAIN, ITERATORS, PREFETCHING, WARM, AFTER_WARM]
    assert not any(load["problem"] for load in loads.values())
    served = {way: load["served_bytes"] / size_bytes for way, load in loads.items()}
    assert all(served[way] >= 0.97 for way in (PLAIN, ITERATORS, PREFETCHING))
    assert loads[WARM]["exit_status"] == (0 if keeps else 1)
    assert served[AFTER_WARM] <= 0.03 if keeps else served[AFTER_WARM] >= 0.97


@pytest.mark.timeout(RUN_SECONDS + 60)
def test_all_is_taken_down_with_a_killed_matrix(tmp_path: Path) -> None:
    needs_the_matrix()
    line = matrix_command(tmp_path, "--size-mib", "64", "--rate-mb-per-s", "1", "overlay")
    with open(tmp_path / "said", "wb") as said:
        matrix = subprocess.Popen(line, stdout=said, stderr=said, start_new_session=True)
    deadline = time.monotonic() + RUN_SECONDS
    while not started(tmp_path) and matrix.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    found = started(tmp_path)
    os.kill(matrix.pid, signal.SIGKILL)
    matrix.wait()
    if "nothing was measured" in (text := (tmp_path / "said").read_text()):
        pytest.skip(text)
    assert found, text
    while started(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert started(tmp_path) == []


def started(folder: Path) -> list[str]:
    """The slow filesystem and the ranks of the matrix whose cache is in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and ("slowfs" in line.split()[0] or "rank.py" in line):
            found.append(line)
    return found
