"""What kept a prefetch from being faster, in its report, in `progress()` and behind the rate of
`warm`: on a link that is slow, with a rate limit, with one thread, with a value that was set.

How it is found is tested in tests/cpp/inflight_test.cpp and limited_by_test.cpp.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, MakeMount, clean_environment, make_cold, run_ranks, write_file
from report_support import changed, load_file

from shardahead import Options, prefetch_files
from shardahead.command import cli

Capture = pytest.CaptureFixture[str]
BLOCK_BYTES = MIB
SIZE_BYTES = 8 * MIB
# Blocks of full size from the beginning are 16 MiB, and four of them are in flight at first.
LINK_MB_PER_S = 100
LINK_BYTES = 448 * MIB


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = write_file(tmp_path / "a.safetensors", SIZE_BYTES)
    make_cold(path)
    return path


@pytest.fixture
def slow_file(tmp_path: Path, make_mount: MakeMount) -> Path:
    """Behind a link that two blocks in flight fill."""
    path = tmp_path / "source" / "a.safetensors"
    path.parent.mkdir()
    with open(path, "wb") as sparse:
        sparse.write(b"x" * 512)  # zeros look like a download that did not end
        sparse.truncate(LINK_BYTES)
    mount = make_mount(path.parent, rate_mb_per_s=LINK_MB_PER_S, round_trip_ms=1)
    return mount.mountpoint / path.name


def warm(*words: object, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "shardahead", "warm", "--quiet", *map(str, words)],
        env={**clean_environment(), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


# ---- the storage ----


def test_warm_says_that_it_is_the_storages_limit(slow_file: Path, tmp_path: Path) -> None:
    line = warm(slow_file, SHARDAHEAD_REPORT=str(tmp_path / "reports"))
    assert line.endswith(" MB/s: the storage's limit\n")
    shown = subprocess.run(
        [sys.executable, "-m", "shardahead", "report", tmp_path / "reports"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\nlimited by   the storage\n" in shown.stdout


def test_ranks_on_a_board_know_it_all(slow_file: Path) -> None:
    script = """
import json, sys, shardahead
handle = shardahead.prefetch_files(sys.argv[1])
handle.wait()
print(json.dumps([handle.report().limited_by, handle.progress().limited_by]))
"""
    assert run_ranks(script, 2, slow_file) == [["storage", "storage"]] * 2


# ---- what was asked for ----


def test_warm_says_who_asked_for_the_rate(file: Path) -> None:
    words = ("--block-size", "1MiB", file)
    assert warm("--rate-limit", "4MB", *words).endswith(" MB/s: --rate-limit\n")
    make_cold(file)
    said = warm(*words, SHARDAHEAD_RATE_LIMIT="4MB")
    assert said.endswith(" MB/s: SHARDAHEAD_RATE_LIMIT\n")


def test_a_rate_limit_that_nothing_came_near_is_not_named(file: Path) -> None:
    assert warm("--rate-limit", "900GB", file).endswith(" MB/s\n")


def test_what_is_resident_was_limited_by_nothing(file: Path) -> None:
    prefetch_files(file).wait()
    handle = prefetch_files(file, options=Options(rate_limit=1))
    handle.wait()
    assert handle.report().limited_by == "unknown"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "unknown"),
        ({"partition": "block"}, "unknown"),
        ({"inflight_bytes": 2 * MIB}, "inflight_bytes"),
        ({"inflight_bytes": 2 * MIB, "partition": "block"}, "unknown"),
    ],
)
def test_of_a_short_load_only_what_was_set_is_known(
    file: Path, options: dict[str, Any], expected: str
) -> None:
    handle = prefetch_files(file, block_size=BLOCK_BYTES, **options)
    handle.wait()
    assert handle.report().limited_by == handle.progress().limited_by == expected
    assert handle.report().to_dict()["limited_by"] == expected
    assert "limit" not in handle.report().text()


def test_one_thread_has_less_in_flight_than_might_be(slow_file: Path) -> None:
    handle = prefetch_files(slow_file, threads=1)
    handle.wait()
    assert handle.report().limited_by == "threads"
    assert "limit" not in handle.report().text()


# ---- shardahead report ----


def found_in(capsys: Capture, *files: Path) -> list[str]:
    assert cli.main(["report", *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith("limited by")]


def say(word: str, document: dict[str, Any]) -> None:
    document["report"]["limited_by"] = word


def test_report_shows_what_is_known(tmp_path: Path, capsys: Capture) -> None:
    file = load_file(tmp_path)
    assert found_in(capsys, file) == []  # too short
    for number, (word, shown) in enumerate(
        [("rate_limit", "the rate limit"), ("threads", "threads"), ("later\n", "later\\n")]
    ):
        known = changed(file, f"{number}.json", partial(say, word))
        assert found_in(capsys, known) == [f"limited by   {shown}"]


def test_files_of_before_it_was_known_are_shown(tmp_path: Path, capsys: Capture) -> None:
    file = load_file(tmp_path)
    old = changed(file, "old.json", lambda it: it["report"].pop("limited_by"))
    assert found_in(capsys, old) == []
    wrong = changed(file, "wrong.json", lambda it: it["report"].update(limited_by=7))
    assert cli.main(["report", str(wrong)]) == 2
    assert "limited_by is no text" in capsys.readouterr().err


def test_the_file_has_it(tmp_path: Path) -> None:
    assert json.loads(load_file(tmp_path).read_bytes())["report"]["limited_by"] == "unknown"
