"""What is known of filesystems by their name, and the remedy that each has. Pure functions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_file
from doctor_support import FUSE, facts, measured, on

from shardahead.command.advice import advise
from shardahead.node import page_keeping
from shardahead.node.filesystems import EMPTIED, UNCACHED, filesystem_of, known, remedy_of

REPOSITORY = Path(__file__).resolve().parents[2]
# One mount of each that is known, and the words of its remedy where pages are emptied.
MOUNTS = {
    "rclone": ("fuse.rclone", "s3:models", "rclone copy s3:models FOLDER"),
    "Mountpoint for Amazon S3": ("fuse", "mountpoint-s3", "aws s3 cp --recursive"),
    "3FS": ("fuse.hf3fs", "hf3fs.stage", "copy the checkpoint to a local disk"),
    "mergerfs": ("fuse.mergerfs", "d1:d2", "cache.files=auto-full"),
    "sshfs": ("fuse.sshfs", "me@filer:/models", "-o kernel_cache"),
    "s3fs": ("fuse.s3fs", "s3fs", "-o kernel_cache"),
    "JuiceFS": ("fuse.juicefs", "JuiceFS:models", "second open()"),
    "gcsfuse": ("fuse.gcsfuse", "bucket", 'mode="pread"'),
    "goofys": ("fuse.goofys", "bucket", 'mode="pread"'),
    "hf-mount": ("fuse", "hf-mount", 'mode="pread"'),
    "BlobFuse2": ("fuse.blobfuse2", "blobfuse2", "direct-io"),
    "GlusterFS": ("fuse.glusterfs", "filer:/models", "fopen-keep-cache"),
    "ceph-fuse": ("fuse.ceph-fuse", "ceph-fuse", "fuse_disable_pagecache = false"),
    "MooseFS": ("fuse.mfs", "mfs#filer:9421", "mfscachemode=YES"),
    "DAOS dfuse": ("fuse.daos", "dfuse", "dfuse-data-cache:on"),
    "bindfs": ("fuse.bindfs", "/models", "-o kernel_cache"),
    "gocryptfs": ("fuse.gocryptfs", "/cipher", "-kernel_cache"),
    "squashfuse": ("fuse.squashfuse_ll", "squashfuse_ll", "mount -t squashfs"),
    "ntfs-3g or another disk through FUSE": ("fuseblk", "/dev/sdb1", "mount -t ntfs3"),
    "virtiofs": ("virtiofs", "models", "--cache always"),
    "9p": ("9p", "models", "cache=loose,ignoreqv"),
    "SMB": ("cifs", "//filer/models", "cache=ro"),
    "NFS": ("nfs4", "filer:/models", 'mode="pread"'),
    "CephFS": ("ceph", "10.0.0.5:/models", 'mode="pread"'),
    "Lustre": ("lustre", "10.0.0.5@tcp:/models", 'mode="pread"'),
    "GPFS": ("gpfs", "models", "pagepool"),
    "BeeGFS": ("beegfs", "beegfs_nodev", "tuneFileCacheType = native"),
    "WekaFS": ("wekafs", "backend/models", 'mode="pread"'),
}
# They have no such option, whatever they are mounted with.
WITHOUT_OPTION = ("rclone", "Mountpoint for Amazon S3", "3FS")


def test_each_that_is_known_is_tried_here() -> None:
    assert [row.name for row in known()] == list(MOUNTS)
    assert all(row.known_from for row in known())


@pytest.mark.parametrize("name", MOUNTS)
def test_a_mount_is_known_and_has_its_own_remedy(name: str) -> None:
    mount_type, source, words = MOUNTS[name]
    assert filesystem_of(mount_type, source).name == name
    assert words in remedy_of(mount_type, source, EMPTIED).text()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("mountpoint-s3", "Mountpoint for Amazon S3"),
        ("hf3fs.stage", "3FS"),
        ("me@filer:/models", "sshfs"),
        ("JuiceFS:models", "JuiceFS"),
        ("mfs#filer:9421", "MooseFS"),
        ("rclone", "rclone"),
        ("mountpoint-s3-of-mine", ""),
        ("filer:/models", ""),  # sshfs, rclone, or anything else
        ("", ""),
    ],
)
def test_plain_fuse_is_known_by_its_source(source: str, name: str) -> None:
    assert filesystem_of("fuse", source).name == name
    assert filesystem_of("fuse.other", source).name == ""


@pytest.mark.parametrize("name", WITHOUT_OPTION)
@pytest.mark.parametrize("keeping", [EMPTIED, UNCACHED, "unknown"])
def test_no_option_is_named_where_there_is_none(name: str, keeping: str) -> None:
    mount_type, source, _ = MOUNTS[name]
    remedy = remedy_of(mount_type, source, keeping)
    assert (remedy.change, remedy.why) == ("", f"{name} has no option that keeps pages")
    text = remedy.text()
    assert "instead: " in text
    assert not re.search("kernel_cache|auto_cache|keep_cache|direct_io", text, re.IGNORECASE)


def test_reads_in_pieces_are_not_recommended_where_they_do_harm() -> None:
    assert "pread" not in remedy_of("fuse.rclone", "s3:models", EMPTIED).text()
    assert "pread" in remedy_of("fuse", "mountpoint-s3", EMPTIED).text()


@pytest.mark.parametrize(
    ("source", "below", "words"),
    [
        ("s3:models", "llama/8b", "s3:models/llama/8b"),
        ("s3:", "llama", "s3:llama"),
        ("s3:models", ".", "s3:models"),
    ],
)
def test_what_is_copied_is_the_checkpoint(source: str, below: str, words: str) -> None:
    text = remedy_of("fuse.rclone", source, EMPTIED, below).text()
    assert f"rclone copy {words} FOLDER" in text


def test_a_source_is_quoted_for_the_shell() -> None:
    text = remedy_of("fuse.rclone", "s3:my models; rm", EMPTIED).text()
    assert "rclone copy 's3:my models; rm' FOLDER" in text


def test_what_is_not_known() -> None:
    assert "kernel_cache or auto_cache" in remedy_of("fuse.mine", "mine", EMPTIED).change
    assert "direct_io" in remedy_of("fuse", "mine", UNCACHED).change
    assert remedy_of("xfs", "/dev/sda1", EMPTIED).change == ""


@pytest.mark.parametrize("name", MOUNTS)
@pytest.mark.parametrize("keeping", [EMPTIED, UNCACHED])
def test_warm_and_doctor_say_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, keeping: str
) -> None:
    mount_type, source, _ = MOUNTS[name]
    mount = replace(FUSE, type=mount_type, source=source)
    monkeypatch.setattr(page_keeping, "mount_of", lambda _path: mount)
    reason = page_keeping.keeping_reason(keeping, "/mnt/my models/m/a.safetensors")
    gone = measured(900, 1000, 950, kept=0, keeping=keeping)
    advice = advise(facts(on(mount, measurement=gone)))[0]
    for line in (*advice.keep, *advice.instead):
        assert line in reason
    assert page_keeping.HOW[keeping] in advice.problem


def test_what_is_copied_is_where_the_links_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = replace(FUSE, type="fuse.rclone", source="s3:x", mount_point=str(tmp_path / "mnt"))
    blob = write_file(tmp_path / "mnt" / "m" / "blob", 10)
    link = tmp_path / "home" / "a.safetensors"
    link.parent.mkdir()
    link.symlink_to(blob)
    monkeypatch.setattr(page_keeping, "mount_of", lambda _path: mount)
    reason = page_keeping.keeping_reason(EMPTIED, str(link))
    assert "rclone copy s3:x/m FOLDER" in reason


@pytest.mark.parametrize("name", MOUNTS)
def test_the_page_of_doctor_has_each_remedy(name: str) -> None:
    text = (REPOSITORY / "docs/doctor.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    row = next(row for row in known() if row.name == name)
    assert name in rows
    for words in (row.emptied, row.instead.replace("{source}", "SOURCE")):
        assert words in rows[name].replace("`", "")
