"""`shardahead report`: what it makes of files of SHARDAHEAD_REPORT.

The files themselves are tested in test_load_record.py, what is none in test_report_files.py.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, eventually, make_cold, run_ranks, write_file
from hypothesis import given
from hypothesis import strategies as st
from report_support import changed, load_file
from terminal_support import run

from shardahead import Options, prefetch_files
from shardahead.command import cli
from shardahead.command.load_files import LoadFile
from shardahead.command.load_plot import ASCII, plot
from shardahead.command.loads import Load, group, moment
from shardahead.prefetch.series import Sample

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return load_file(tmp_path)


def later(document: dict[str, Any]) -> None:
    document["started"] = "2100-01-01T00:00:00+00:00"


def of(
    samples: list[Sample], *, rank: int = 0, started: float = 100.0, size_bytes: int = 1000
) -> LoadFile:
    document = {
        "entry": "prefetch_files",
        "read_bytes": samples[-1].read_bytes,
        "consumed_bytes": samples[-1].consumed_bytes,
        "report": None,
        "reason": None,
        "started": "",
        "node": {"host": "n"},
    }
    checkpoint = (("/m/a", size_bytes),)
    seconds = samples[-1].seconds
    return LoadFile("f", document, started, seconds, rank, "n", checkpoint, tuple(samples))


# ---- one load ----


def test_one_is_shown_in_80_columns(file: Path, capsys: Capture) -> None:
    assert cli.main(["report", str(file)]) == 0
    page = capsys.readouterr().out
    lines = page.splitlines()
    assert "prefetch_files: done" in lines[0]
    assert any(line.split() == ["brought", "in", "3.00", "MiB"] for line in lines)
    assert any(line.startswith("ranks") and line.endswith(" 1") for line in lines)
    assert "consumed" in lines[-1]
    long = [line for line in lines if len(line) > 80]
    assert all(str(file.parent.parent) in line or line.startswith("versions") for line in long)


def test_a_folder_stands_for_its_files(file: Path, capsys: Capture) -> None:
    (file.parent / ".hidden.json.unfinished").write_text("{")
    assert cli.main(["report", str(file.parent)]) == 0
    by_folder = capsys.readouterr().out
    cli.main(["report", str(file)])
    assert by_folder == capsys.readouterr().out


def test_the_json_has_all_of_it(file: Path, capsys: Capture) -> None:
    assert cli.main(["report", "--json", str(file)]) == 0
    (load,) = json.loads(capsys.readouterr().out)["loads"]
    assert (load["ranks"], load["read_bytes"], load["total_bytes"]) == (1, 3 * MIB, 3 * MIB)
    assert load["processes"] == [{"file": str(file), **json.loads(file.read_bytes())}]


def test_a_name_cannot_drive_the_terminal(file: Path, capsys: Capture) -> None:
    def change(document: dict[str, Any]) -> None:
        document["node"]["host"] = document["ended"] = "\x1b[31m\udcff"
        document["files"][0]["path"] = "/\x1b]0;x\x07/a"

    assert cli.main(["report", str(changed(file, "b.json", change))]) == 0
    page = capsys.readouterr().out
    assert "\x1b" not in page
    assert "\\x1b[31m\\xff" in page


def test_a_picture_is_drawn(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["report", str(file), "--picture", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_says_of_what_was_resident_that_there_is_nothing_to_draw(
    tmp_path: Path, file: Path
) -> None:
    pytest.importorskip("matplotlib")
    shards = sorted(tmp_path.glob("*.safetensors"))
    prefetch_files(shards, options=Options(report=tmp_path / "again")).wait()
    eventually(lambda: [*tmp_path.glob("again/*.json")], "no report is written")
    pictures = tmp_path / "resident.svg", tmp_path / "both.svg"
    assert cli.main(["report", str(tmp_path / "again"), "--picture", str(pictures[0])]) == 0
    both = ["report", str(tmp_path / "again"), str(file), "--picture", str(pictures[1])]
    assert cli.main(both) == 0
    # Letters are paths in an SVG; matplotlib says before each text what it is.
    said = "<!-- nothing to draw: all 3.00 MiB were resident before -->"
    drawn = ["<!-- MiB -->" in picture.read_text() for picture in pictures]
    assert drawn == [False, True]
    assert [picture.read_text().count(said) for picture in pictures] == [1, 1]


def test_a_picture_without_a_name_is_refused(file: Path, capsys: Capture) -> None:
    assert cli.main(["report", str(file), "--picture", ""]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert "--picture takes the name of a file, and got an empty one" in shown.err


def test_a_rate_is_written_as_everywhere(file: Path, capsys: Capture) -> None:
    def change(document: dict[str, Any]) -> None:
        document.update(read_bytes=4 * MIB, seconds=10.0, total_bytes=4 * MIB)

    assert cli.main(["report", str(changed(file, "slow.json", change))]) == 0
    assert "rate         0.42 MB/s\n" in capsys.readouterr().out


def test_of_what_was_resident_there_is_nothing_to_draw(
    tmp_path: Path, file: Path, capsys: Capture
) -> None:
    shards = sorted(tmp_path.glob("*.safetensors"))
    prefetch_files(shards, options=Options(report=tmp_path / "again")).wait()
    eventually(lambda: [*tmp_path.glob("again/*.json")], "no report is written")
    assert cli.main(["report", str(tmp_path / "again")]) == 0
    page = capsys.readouterr().out
    assert page.endswith("\n\nnothing to draw: all 3.00 MiB were resident before\n")
    assert not re.search(r"(?m)^rate|in flight", page)
    assert cli.main(["report", str(tmp_path / "again"), str(file)]) == 0
    page = capsys.readouterr().out
    assert page.count("nothing to draw") == page.count("in flight") == 1

    def cancelled(document: dict[str, Any]) -> None:
        document["report"]["resident_bytes"] = 0

    (again,) = tmp_path.glob("again/*.json")
    assert cli.main(["report", str(changed(again, "c.json", cancelled))]) == 0
    assert "nothing was brought in, and nothing consumed" in capsys.readouterr().out


@pytest.mark.parametrize(("encoding", "line"), [("utf-8", "\u2500"), ("ascii", "-")])
def test_tables_are_those_of_every_command(file: Path, encoding: str, line: str) -> None:
    changed(file, "b.json", later)
    done = run("report", file.parent, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    below = done.stdout.splitlines()[1]
    # As `status` and `plan` have it: one line below the heads, without an edge.
    assert set(below) == ({line} if encoding == "utf-8" else {line, "+"})


def test_without_matplotlib_it_says_what_to_install(
    file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["report", str(file), "--picture", "p.png"]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


# ---- several ----


def test_several_are_compared(file: Path, capsys: Capture) -> None:
    def slower(document: dict[str, Any]) -> None:
        later(document)
        document["seconds"] = 50.0

    others = [changed(file, f"{i}.json", slower) for i in range(3)]
    assert cli.main(["report", str(file), str(others[0])]) == 0
    page = capsys.readouterr().out
    (time,) = [line for line in page.splitlines() if line.split()[:1] == ["time"]]
    assert time.split()[-2:] == ["50.00", "s"]
    assert time.split()[1] != "50.00"
    assert all(len(line) <= 80 or "prefetch_files, " in line for line in page.splitlines())
    assert page.count("in flight") == 2  # a plot each


def test_ranks_of_one_load_are_one(tmp_path: Path, capsys: Capture) -> None:
    path = write_file(tmp_path / "a", 4 * MIB)
    make_cold(path)
    # They are at it together: each waits for the other one's thread to have begun.
    script = """
import os, sys, time, shardahead
handle = shardahead.prefetch_files(sys.argv[1], consumer=True)
open(sys.argv[2] + os.environ["LOCAL_RANK"], "w").close()
while not (os.path.exists(sys.argv[2] + "0") and os.path.exists(sys.argv[2] + "1")):
    time.sleep(0.01)
handle.consumed(0, 4 << 20)
handle.wait()
print("{}")
"""
    folder = tmp_path / "reports"
    run_ranks(script, 2, path, tmp_path / "at-", env={"SHARDAHEAD_REPORT": str(folder)})
    assert cli.main(["report", "--json", str(folder)]) == 0
    (load,) = json.loads(capsys.readouterr().out)["loads"]
    assert load["ranks"] == 2
    assert [each["process"]["local_rank"] for each in load["processes"]] == [0, 1]
    assert load["read_bytes"] == sum(each["read_bytes"] for each in load["processes"])
    assert cli.main(["report", str(folder)]) == 0
    page = capsys.readouterr().out
    assert any(line.split()[:2] == ["rank", "pid"] for line in page.splitlines())


def test_what_is_of_one_load() -> None:
    samples = [Sample(0.0), Sample(2.0, read_bytes=10)]
    first, second = of(samples), of(samples, rank=1, started=101)
    assert [len(load.processes) for load in group([second, first])] == [2]
    assert len(group([first, of(samples, started=101)])) == 2  # the same rank
    assert len(group([first, of(samples, rank=1, started=102.5)])) == 2  # after its end
    assert len(group([first, of(samples, rank=1, size_bytes=999)])) == 2  # other files
    load = Load((first, second))
    assert (load.seconds, load.read_bytes) == (3.0, 20)


# ---- how it went on ----


def test_bytes_go_on_evenly_between_two_samples() -> None:
    file = of([Sample(0.0), Sample(1.0, 0, 100, 50, 7, 9), Sample(3.0, 0, 300, 150, 8, 9)])
    load = Load((file, of([Sample(0.0, 0, 1, 60)], rank=1)))
    assert moment(load, 0.5).read_bytes == 50 + 1
    now = moment(load, 2.0)
    assert (now.read_bytes, now.consumed_bytes) == (200 + 1, 60)
    assert (now.claimed_bytes, now.window_bytes) == (7, 9)
    assert moment(load, 100.0).read_bytes == 300 + 1
    assert moment(load, -1.0).read_bytes == 0


def test_the_plot_shows_who_is_ahead() -> None:
    # All is brought in in the first half, and consumed evenly.
    file = of([Sample(0.0), Sample(1.0, 0, 1000, 500, 20), Sample(2.0, 0, 1000, 1000, 0)])
    drawn = plot(Load((file,)), 51, 2.0, ASCII).splitlines()
    rows = [line[11:].ljust(40) for line in drawn[:10]]
    assert drawn[0].startswith("    1000 B ")
    for row in rows:
        assert row.strip().startswith((":", "#"))
        assert set(row) <= {" ", ":", "#"}
    consumed = [row.count("#") for row in rows]
    assert consumed == sorted(consumed)
    middle = [row[20] for row in rows]
    assert middle.count(":") == middle.count("#") == 5
    assert drawn[10][11:].count("*") >= 10  # in flight
    assert all(len(line) <= 51 for line in drawn[:-1])


samples = st.lists(
    st.tuples(st.floats(0, 1e6), *[st.integers(0, 2**45)] * 6), min_size=1, max_size=20
).map(lambda rows: [Sample(*row) for row in sorted(rows)])


@given(st.lists(samples, min_size=1, max_size=3), st.integers(20, 120))
def test_whatever_it_was_it_is_drawn(ranks: list[list[Sample]], width: int) -> None:
    load = Load(tuple(of(each, rank=rank) for rank, each in enumerate(ranks)))
    drawn = plot(load, width, load.seconds, ASCII).splitlines()
    assert 12 <= len(drawn) <= 15
    assert all(len(line) <= max(width, 24) for line in drawn[:10])
