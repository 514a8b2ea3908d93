"""The page of `shardahead doctor` as it is printed, 80 columns wide.

Of mounts that are not here, told by a fixture, each is compared with a file of doctor_pages/; this
file run as a program writes them anew. Of mounts that are here figures differ, and only the form is
looked at.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, MakeMount, finish, make_cold, start_python, write_file
from doctor_support import facts, measured, not_measured, on, told_mount, told_queue
from kernel_support import mounted

from shardahead.command.advice import advise
from shardahead.command.doctor import as_text
from shardahead.command.facts import MountFacts
from shardahead.command.wrapped import WIDTH, labelled, labelled_command, labelled_list
from shardahead.node.filesystems import EMPTIED
from shardahead.node.fuse_queue import fuse_queue
from shardahead.node.proactive_reclaim import proactive_reclaims
from shardahead.node.stripes import FileStripes

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = Path(__file__).parent / "doctor_pages"
COMMAND = "import sys, shardahead.command.cli; sys.exit(shardahead.command.cli.main(sys.argv[1:]))"
FUSE_OPTIONS = "rw,user_id=0,group_id=0,default_permissions,allow_other"
GONE = measured(310, 305, 290, kept=0, keeping=EMPTIED)
STRIPES = tuple(
    FileStripes(f"/mnt/models/m/model-0000{i}-of-00004.safetensors", 2**30 + 1, MIB, 1)
    for i in range(1, 5)
)
# The type and source of a mount with its options, and what is found there.
TOLD: dict[str, tuple[str, dict[str, Any]]] = {
    "nfs": (
        "nfs4 filer:/export/models rw,vers=4.2,rsize=262144,wsize=262144,namlen=255,hard,proto=tcp,"
        "timeo=600,retrans=2,sec=sys,clientaddr=10.0.0.9,local_lock=none,addr=10.0.0.5",
        {"measurement": measured(410, 960, 280)},
    ),
    "lustre": (
        "lustre 10.0.0.5@tcp:/scratch rw,checksum,flock,user_xattr,lruresize,lazystatfs,encrypt",
        {"measurement": measured(800, 1900, 900), "stripes": STRIPES},
    ),
    "rclone": (f"fuse.rclone s3:models {FUSE_OPTIONS}", {"measurement": GONE}),
    "mountpoint-s3": (f"fuse mountpoint-s3 {FUSE_OPTIONS}", {"measurement": GONE}),
    "3fs": (
        f"fuse.hf3fs hf3fs.stage {FUSE_OPTIONS},max_read=1048576",
        {"measurement": not_measured("not_allowed", "0 bytes were allowed for it")},
    ),
    "mergerfs": (f"fuse.mergerfs d1:d2 {FUSE_OPTIONS}", {"measurement": GONE}),
    "virtiofs": ("virtiofs models rw", {"measurement": GONE}),
    "sshfs-queue": (
        f"fuse.sshfs me@filer:/models {FUSE_OPTIONS},max_read=65536",
        {"measurement": measured(80, 390, 30, latency_seconds=0.002, peak_requests=61)},
    ),
    "all-resident": (
        "nfs4 filer:/export/models rw,vers=4.2,rsize=1048576,nconnect=4,proto=tcp",
        {
            "measurement": not_measured(
                "all_resident", "all of it is in memory, so that reading it would measure memory"
            ),
            "resident_bytes": 4 * 2**30,
        },
    ),
}


def told(root: Path, name: str) -> MountFacts:
    line, found = TOLD[name]
    mount = told_mount(root, f"36 1 0:53 / /mnt/models rw,relatime - {line}")
    if name in ("3fs", "sshfs-queue", "mergerfs"):
        told_queue(root, "0:53", 12, 9)
    elif "fuse" in mount.type:
        (root / "sys/fs/fuse/connections").mkdir(parents=True)
    return on(mount, fuse_queue=fuse_queue(mount, root), **found)


def page_of(root: Path, name: str) -> str:
    found = replace(facts(told(root, name)), paths=("/mnt/models/m",))
    return as_text(found, advise(found)) + "\n"


@pytest.mark.parametrize("name", TOLD)
def test_the_page_of_a_mount_that_is_told(tmp_path: Path, name: str) -> None:
    page = page_of(tmp_path, name)
    assert max(map(len, page.splitlines())) <= WIDTH
    assert page == (PAGES / f"{name}.txt").read_text(encoding="utf-8")


def test_the_sample_of_the_documentation_is_what_is_printed() -> None:
    text = (REPOSITORY / "docs/doctor.md").read_text(encoding="utf-8")
    for name in ("nfs", "mountpoint-s3"):
        page = (PAGES / f"{name}.txt").read_text(encoding="utf-8")
        assert f"```console\n$ shardahead doctor /mnt/models/m\n{page}```\n" in text


# ---- on real mounts ----


def printed(*arguments: str | Path) -> list[str]:
    """The lines of a page; none may be wider than it has to be."""
    done = finish(start_python(COMMAND, "doctor", *arguments))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line in lines:
        assert len(line) <= WIDTH or len(line[12:].split()) == 1, line
    return lines


def labels(lines: list[str]) -> list[str]:
    end = next(i for i, line in enumerate(lines) if line.startswith(("what to do", "nothing to")))
    return [label for line in lines[:end] if (label := line[:12].strip())]


NODE = ["memory", "local rank", "settings", "kernel", "limits", "board"]
if proactive_reclaims():
    NODE.insert(1, "paged out")  # of this machine
RATES = ["latency", "1 stream", "4 streams", "plain", "measured"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_a_local_disk(tmp_path: Path) -> None:
    paths = [write_file(tmp_path / f"{i}.safetensors", 16 * MIB) for i in range(3)]
    make_cold(*paths)
    found = labels(printed(tmp_path))
    if "readahead" not in found:
        pytest.skip("the temporary folder is on no disk")
    head = ["checkpoint", "mount", "class", "options", "readahead", "files", "owners"]
    assert [each for each in found if each != "layer"] == [*head, *RATES, *NODE]


def test_memory(tmp_path: Path, stack: ExitStack) -> None:
    point = mounted(stack, tmp_path / "memory", "-t", "tmpfs", "none")
    write_file(point / "a.safetensors", MIB)
    lines = printed(point)
    head = ["checkpoint", "mount", "class", "options", "files", "owners", "measured"]
    assert labels(lines) == [*head, *NODE]
    assert "measured    not measured: the files are in memory" in lines
    assert lines[-1] == "nothing to change was found"


def test_an_overlay(tmp_path: Path, stack: ExitStack) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    path = write_file(tmp_path / "lower" / "a.safetensors", 48 * MIB)
    folders = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    point = mounted(stack, tmp_path / "shown", "-t", "overlay", "-o", folders, "none")
    make_cold(path)
    lines = printed(point)
    found = labels(lines)
    assert found[:5] == ["checkpoint", "mount", "class", "layer", "layer"]
    assert [each for each in found if each in NODE] == NODE
    # What the layers are has been said, and may be very long.
    assert not any("lowerdir=" in line for line in lines)


def test_a_slow_filesystem(tmp_path: Path, make_mount: MakeMount) -> None:
    write_file(tmp_path / "source" / "a.safetensors", 48 * MIB)
    mount = make_mount(tmp_path / "source", rate_mb_per_s=200, keep_cache=False)
    lines = printed(mount.mountpoint)
    head = ["checkpoint", "mount", "class", "options", "readahead", "request", "fuse queue"]
    assert labels(lines) == [*head, "files", "owners", *RATES, *NODE]
    text = " ".join(" ".join(lines).split())
    assert "every open() of a file empties its page cache" in text
    assert "to keep it: mount it with its option that keeps pages" in text


# ---- lines ----


def test_text_goes_on_below_itself_and_paths_are_whole() -> None:
    path = "/" + "x" * 100
    assert labelled("label", f"it lies on {path} for now", 12) == [
        "label       it lies on",
        f"            {path}",
        "            for now",
    ]
    assert labelled("label", "", 12) == ["label"]


def test_a_number_stays_with_its_unit() -> None:
    text = "x" * 63 + " 12 GiB"
    assert labelled("", text, 12) == [" " * 12 + "x" * 63, " " * 12 + "12 GiB"]


def test_commands_go_on_after_a_backslash_and_words_are_whole() -> None:
    command = "umount '/mnt/my models' && mount -o " + ",".join(["rsize=1"] * 6) + " 'a b' /x"
    first, second = labelled_command("now:", command, 18)
    assert (first[-2:], len(first) <= WIDTH) == (" \\", True)
    joined = " ".join(line[18:].rstrip("\\").strip() for line in (first, second))
    assert joined == command
    assert labelled_command("now:", "true", 18) == ["now:              true"]


def test_options_are_cut_where_they_have_to_be() -> None:
    lines = labelled_list("options", ("rw", "addr=" + "1" * 100, "hard"), 12)
    assert max(map(len, lines)) <= WIDTH
    assert "".join(line[12:] for line in lines) == "rw,addr=" + "1" * 100 + ",hard"
    assert labelled_list("options", (), 12) == ["options"]


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for each in TOLD:
        with tempfile.TemporaryDirectory() as folder:
            (PAGES / f"{each}.txt").write_text(page_of(Path(folder), each), encoding="utf-8")
    sys.exit(0)
