"""What `status`, `plan` and `evict` show, at a terminal of 80 columns and in a pipe: really run,
and compared as a whole.
"""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import pytest
from conftest import MIB, PAGE_BYTES, make_cold, resident_bytes, write_file
from terminal_support import at_terminal, run

from shardahead.command.cli import _parser
from shardahead.units import format_bytes

# Longer than the names of most folders of most filesystems.
LONG_FOLDER = "/".join(["scratch", "projects", "a-group-with-a-long-name", "checkpoints-of-runs"])


def make(folder: Path, sizes: dict[str, int], resident: dict[str, int] | None = None) -> Path:
    """Shards of these sizes, of which the first bytes are resident, all pages else cold."""
    for name, size in sizes.items():
        write_file(folder / name, size)
    make_cold(*(folder / name for name in sizes))
    for name, length in (resident or {}).items():
        descriptor = os.open(folder / name, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no more than is asked for
        for offset in range(0, length, PAGE_BYTES):
            os.pread(descriptor, PAGE_BYTES, offset)
        os.close(descriptor)
    return folder


def numbered(count: int, stem: str = "model", size: int = MIB) -> dict[str, int]:
    return {f"{stem}-{i:05}-of-{count:05}.safetensors": size for i in range(1, count + 1)}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return make(tmp_path / "m", numbered(2), {"model-00001-of-00002.safetensors": MIB})


BAR = "━" * 20


def page(text: str, folder: Path) -> str:
    """The lines of `text`, with the folder's name, which is another each time."""
    return text.strip("\n").replace("FOLDER", str(folder)).replace("RULE", "─")


def same(printed: str, text: str, folder: Path) -> None:
    """Drawn lines may have any length; the others are as they are."""
    lines = [re.sub("─+", "─", line).rstrip() for line in printed.splitlines()]
    assert "\n".join(lines).strip("\n") == page(text, folder)


def names_in(printed: str, stem: str) -> list[str]:
    return [line.split()[0] for line in printed.splitlines() if line.startswith(stem)]


def test_two_shards(two: Path) -> None:
    text = """
status: 1.00 MiB of 2.00 MiB resident (50.0 %)
2 shards in FOLDER

shard                                  size   resident
RULE
model-00001-of-00002.safetensors   1.00 MiB    100.0 %   ━━━━━━━━━━━━━━━━━━━━
model-00002-of-00002.safetensors   1.00 MiB      0.0 %
"""
    same(run("status", two).stdout, text, two)
    shown = at_terminal("status", two, env={"NO_COLOR": "1"})
    assert shown.status == 0
    same(shown.text, text, two)
    # In colours what is left is drawn, too, in another.
    coloured = at_terminal("status", two)
    assert re.findall("━+", coloured.text) == [BAR, BAR]
    assert "\x1b[38;5" in coloured.raw
    plan = """
plan: 2.00 MiB in 2 blocks, read in this order
2 shards in FOLDER

shard, in this order                   size   blocks
RULE
model-00001-of-00002.safetensors   1.00 MiB        1
model-00002-of-00002.safetensors   1.00 MiB        1
"""
    same(run("plan", two).stdout, plan, two)
    same(at_terminal("plan", two).text, plan, two)
    details = "\n\nblocks of 16.0 MiB; partition dynamic; local rank 0 of 1 (default)\n"
    same(run("plan", "-v", two).stdout, plan.rstrip("\n") + details, two)


def test_evict_tells_what_it_dropped(two: Path) -> None:
    assert run("evict", two).stdout == "evict: 1.00 MiB of 2.00 MiB dropped\n"
    assert run("evict", two).stdout == "evict: nothing of 2.00 MiB was resident\n"
    text = """
evict: nothing of 2.00 MiB was resident
2 shards in FOLDER

shard                                  size   resident
RULE
model-00001-of-00002.safetensors   1.00 MiB      0.0 %
model-00002-of-00002.safetensors   1.00 MiB      0.0 %

told by: cachestat 2 shards
"""
    same(run("evict", "-v", two).stdout, text, two)


def test_evict_shows_where_something_stayed(two: Path) -> None:
    path = two / "model-00002-of-00002.safetensors"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[0] >= 0
        stayed = resident_bytes(path)
        done = run("evict", two)
        stayed = min(stayed, resident_bytes(path))
    assert done.returncode == 1
    first, *others = done.stdout.splitlines()
    assert first.startswith("evict: ")
    assert first.endswith(f" of 2.00 MiB dropped, {format_bytes(stayed)} stayed")
    assert others[0] == f"2 shards in {two}"
    assert done.stderr.startswith(f"shardahead: incomplete: {format_bytes(stayed)} stayed: pages")
    assert done.stderr.count("\n") == 1


# ---- many ----


def test_many_shards_are_summed_up(tmp_path: Path) -> None:
    sizes = numbered(50, size=4 * PAGE_BYTES)
    names = list(sizes)
    full = dict.fromkeys(names[:20], 4 * PAGE_BYTES)
    folder = make(tmp_path / "m", sizes, {**full, names[20]: PAGE_BYTES})
    status = """
status: 324 KiB of 800 KiB resident (40.5 %)
50 shards in FOLDER

shards                  size   resident
RULE
20 resident          320 KiB    100.0 %   ━━━━━━━━━━━━━━━━━━━━
1 partly resident   16.0 KiB     25.0 %   ━━━━━
29 not resident      464 KiB      0.0 %

--each shows every shard
the first that is not resident: model-00021-of-00050.safetensors
"""
    same(at_terminal("status", folder, env={"NO_COLOR": "1"}).text, status, folder)
    each = run("status", "--each", folder).stdout
    assert names_in(each, "model-") == names
    plan = """
plan: 800 KiB in 50 blocks, read in this order
50 shards in FOLDER

shard, in this order                   size   blocks
RULE
model-00001-of-00050.safetensors   16.0 KiB        1
model-00002-of-00050.safetensors   16.0 KiB        1
model-00003-of-00050.safetensors   16.0 KiB        1
model-00004-of-00050.safetensors   16.0 KiB        1
model-00005-of-00050.safetensors   16.0 KiB        1
(40 more)                           640 KiB       40
model-00046-of-00050.safetensors   16.0 KiB        1
model-00047-of-00050.safetensors   16.0 KiB        1
model-00048-of-00050.safetensors   16.0 KiB        1
model-00049-of-00050.safetensors   16.0 KiB        1
model-00050-of-00050.safetensors   16.0 KiB        1

--each shows every shard
"""
    same(run("plan", folder).stdout, plan, folder)
    each = run("plan", "--each", folder).stdout
    assert names_in(each, "model-") == names
    assert run("evict", folder).stdout == "evict: 324 KiB of 800 KiB dropped\n"
    assert "50 not resident" in run("evict", "-v", folder).stdout


def test_forty_are_not_many(tmp_path: Path) -> None:
    sizes = numbered(40, size=10)
    shown = run("status", make(tmp_path / "m", sizes)).stdout
    assert names_in(shown, "model-") == list(sizes)


# ---- names ----


def test_a_long_folder_is_told_once_and_a_long_name_keeps_its_number(tmp_path: Path) -> None:
    stem = "diffusion_pytorch_model_of_a_name_that_is_longer_than_most"
    sizes = numbered(2, stem, PAGE_BYTES)
    folder = make(tmp_path / LONG_FOLDER / LONG_FOLDER, sizes)
    shown = at_terminal("status", folder, env={"NO_COLOR": "1"})
    assert shown.text.count(LONG_FOLDER) == 2  # in one folder
    table = [line for line in shown.lines if "of-00002" in line]
    assert len(table) == 2
    assert all(len(line) <= 80 for line in shown.lines if line != f"2 shards in {folder}")
    assert [re.match(r"diffusion_\S*…\S*-0000(\d)-of-00002", line)[1] for line in table] == [  # type: ignore[index]
        "1",
        "2",
    ]
    # A program finds names as they are.
    assert names_in(run("status", folder).stdout, stem) == list(sizes)
    for command in (["plan"], ["evict", "-v"]):
        shown = at_terminal(*command, folder)
        assert all(len(line) <= 80 for line in shown.lines if line != f"2 shards in {folder}")


def test_in_a_narrow_terminal_names_count_more_than_bars(two: Path) -> None:
    shown = at_terminal("status", two, columns=40, env={"NO_COLOR": "1"})
    rows = [line for line in shown.lines if line.startswith("model-")]
    assert [row.split()[-2:] for row in rows] == [["100.0", "%"], ["0.0", "%"]]
    assert [row[:11] for row in rows] == ["model-00001", "model-00002"]
    assert "━" not in shown.text
    assert all(len(row) <= 40 for row in rows)


def test_names_of_any_kind_and_no_bytes(tmp_path: Path) -> None:
    sizes = {"a.safetensors": 0, "ü\x1b[31m.safetensors": 10, "模型-2.safetensors": PAGE_BYTES}
    folder = make(tmp_path / "m", sizes, {"ü\x1b[31m.safetensors": 10})
    words = ("status", "--all", folder)
    text = """
status: 10 B of 4.01 KiB resident (0.2 %)
3 shards in FOLDER

shard                       size   resident
RULE
a.safetensors                0 B    100.0 %   ━━━━━━━━━━━━━━━━━━━━
ü\\x1b[31m.safetensors       10 B    100.0 %   ━━━━━━━━━━━━━━━━━━━━
模型-2.safetensors      4.00 KiB      0.0 %

a load will fail: 'FOLDER/a.safetensors' is empty, as a download that did not begin or a full disk \
leaves it
"""
    same(at_terminal(*words, env={"NO_COLOR": "1"}).text, text, folder)
    plain = run(*words, env={"PYTHONIOENCODING": "ascii"})
    assert plain.returncode == 0
    assert plain.stdout.isascii()
    assert "\\u6a21\\u578b-2.safetensors" in plain.stdout


def test_nothing_but_an_empty_shard(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", {"a.safetensors": 0})
    assert run("status", folder).stdout.startswith(
        "status: 0 B of 0 B resident (100.0 %)\n1 shard in"
    )
    assert run("evict", folder).stdout == "evict: nothing of 0 B was resident\n"
    done = run("warm", "-q", folder)
    assert (done.returncode, done.stdout) == (1, "warm: nothing to read: the shards are empty\n")
    assert done.stderr.startswith(f"shardahead: incomplete: '{folder}/a.safetensors' is empty")


def test_shards_of_several_folders(tmp_path: Path) -> None:
    for name in ("x", "y"):
        make(tmp_path / name, {"a.safetensors": 10})
    lines = run("status", tmp_path / "x", tmp_path / "y").stdout.splitlines()
    assert lines[1] == f"2 shards in {tmp_path}"
    assert [line.split()[0] for line in lines[-2:]] == ["x/a.safetensors", "y/a.safetensors"]


# Folders as clusters have them.
LUSTRE = "lustre-like/a-very-long-name-of-a-project/another-long-name/checkpoints/step-00012345"
HUB = "hub/models--an-organisation--A-Model-7B-Instruct/snapshots/0123456789abcdef0123456789abcdef"


def far_apart(root: Path) -> list[Path]:
    make(root / LUSTRE, numbered(2, size=PAGE_BYTES))
    make(root / HUB, numbered(1, size=PAGE_BYTES))
    make(root / "pipe", {"vae.safetensors": PAGE_BYTES})
    return [root / LUSTRE, root / HUB, root / "pipe"]


def headings(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.endswith("/")]


def test_a_folder_that_is_too_long_for_each_name_is_above_its_names(tmp_path: Path) -> None:
    words = far_apart(tmp_path)
    status = f"""
status: 0 B of 16.0 KiB resident (0.0 %)
4 shards in FOLDER

shard                                    size   resident
RULE
{LUSTRE}/
  model-00001-of-00002.safetensors   4.00 KiB      0.0 %
  model-00002-of-00002.safetensors   4.00 KiB      0.0 %
{HUB}/
  model-00001-of-00001.safetensors   4.00 KiB      0.0 %
pipe/
  vae.safetensors                    4.00 KiB      0.0 %
"""
    same(run("status", *words).stdout, status, tmp_path)
    # A line that is wider than the terminal is broken by the terminal.
    same(at_terminal("status", *words, env={"NO_COLOR": "1"}).text, status, tmp_path)
    expected = [f"{LUSTRE}/", f"{HUB}/", "pipe/"]
    assert headings(at_terminal("status", *words).text) == expected  # in colours
    assert headings(at_terminal("plan", *words).text) == expected
    assert headings(run("evict", "-v", *words).stdout) == expected
    wide = at_terminal("status", *words, columns=400).text
    assert f"{HUB}/model-00001-of-00001.safetensors  " in wide


def test_a_plan_keeps_its_order_and_a_status_tells_each_folder_once(tmp_path: Path) -> None:
    lustre, hub, _ = far_apart(tmp_path)
    first, second = (lustre / name for name in numbered(2))
    words = [first, hub, second]
    expected = [f"{LUSTRE}/", f"{HUB}/"]
    assert headings(run("status", *words).stdout) == expected
    assert headings(run("plan", *words).stdout) == [*expected, expected[0]]
    many = make(tmp_path / "many" / LONG_FOLDER, numbered(50, size=10))
    begin = f"many/{LONG_FOLDER}/"
    plan = run("plan", many, *words).stdout
    assert headings(plan) == [begin, begin, *expected, expected[0]]
    assert [line.split("  ")[0] for line in plan.splitlines() if " more)" in line] == ["(43 more)"]
    summed_up = run("status", many, *words).stdout
    assert "53 not resident" in summed_up
    assert f"the first that is not resident: {begin}model-00001-of-00050.s" in summed_up


# ---- results ----


def test_the_result_of_warm(two: Path) -> None:
    done = run("warm", "-q", two)
    assert re.fullmatch(
        r"warm: 1\.00 MiB in [0-9.]+ s, [0-9.,]+ MB/s; 1\.00 MiB were resident\n", done.stdout
    )
    assert run("warm", "-q", two).stdout == "warm: all 2.00 MiB were resident\n"
    line, figures = run("warm", "-qv", two).stdout.splitlines()
    assert line == "warm: all 2.00 MiB were resident"
    assert not re.search(r"\b0 B|MB/s|steps", figures)
    assert "2.00 MiB already resident; local rank 0 of 1 (default), 2 threads" in figures


def every_command() -> list[str]:
    (commands,) = (each.choices for each in _parser()._actions if isinstance(each.choices, dict))
    return list(commands)


@pytest.mark.parametrize("command", every_command())
def test_help_tells_each_exit_status(command: str) -> None:
    text = " ".join(run(command, "--help").stdout.split())
    for status in (
        "0 done",
        "1 incomplete, with the reason on standard error",
        "2 wrong usage",
        "130 ended by Ctrl-C",
        "141 nobody reads",
    ):
        assert status in text
    if command in ("report", "completion"):
        return
    assert "--all every shard of a folder, also variants and copies" in text
    assert ("--each a row for each shard" in text) == (command in ("status", "evict", "plan"))
