"""What is known of a filesystem by its name: what makes it keep pages, or what to do instead.

One row for each, known by the type of its mount, or by its source where the type is plain "fuse".
For advice alone: what Shardahead does follows from what it measures. Pure; any thread.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal

#: What the core finds of a mount: csrc/node/keeping.h.
EMPTIED, UNCACHED = "emptied_by_open", "uncached"
#: The same remedies as for EMPTIED; the core does not find this out, `warm` does.
CLOSED = "emptied_by_close"

PREAD = 'load with mode="pread", as the weight iterators do by themselves'
_COPY = "copy the checkpoint to a local disk and load it from there"
_KEEP = "mount it with -o kernel_cache"
_LIBFUSE = (
    "mount it with its option that keeps pages, with libfuse kernel_cache or auto_cache "
    "(FOPEN_KEEP_CACHE)"
)
_NO_DIRECT_IO = "mount it without direct_io"
_MERGERFS = "mount it with cache.files=auto-full"
_CEPH_FUSE = "set fuse_disable_pagecache = false in ceph.conf"
_MOOSEFS = "mount it with mfscachemode=YES"
_DAOS = "run daos container set-attr POOL CONTAINER dfuse-data-cache:on"
_VIRTIOFS = "run virtiofsd with --cache always"
_9P = "mount it with cache=loose,ignoreqv, where no one writes to it"
_SMB = "mount it with cache=ro, where no one writes to it"
_BEEGFS = "set tuneFileCacheType = native in beegfs-client.conf"
_NTFS = "mount it by the kernel's own driver, mount -t ntfs3 or exfat"


@dataclass(frozen=True)
class Filesystem:
    """`emptied` is what keeps pages where every open() of a file empties its page cache, `uncached`
    what makes reads use the page cache where they go past it; "" where that is not known.
    `forgets`: when it lets go of pages by itself, in the words that follow its name; "" where it
    does not, as far as is known. `never_keeps`: there is no such option. `instead`, what to do
    then, may name the "{source}" of the files. `pread`: whether parallel reads into memory are a
    good way to load from it. `read_ahead`: what says how far a plain reader reads ahead: "kernel",
    the file of /sys; the mount option "rasize"; or settings of its "own". `known_from`: where all
    of this is known from.
    """

    name: str
    types: tuple[str, ...] = ()
    source: str = ""  # a pattern, of mounts of plain "fuse"
    emptied: str = ""
    uncached: str = ""
    forgets: str = ""
    never_keeps: bool = False
    instead: str = ""
    pread: bool = True
    read_ahead: Literal["kernel", "rasize", "own"] = "kernel"
    known_from: str = ""


@dataclass(frozen=True)
class Remedy:
    """What to do about a mount that does not keep pages: `change` of the mount, "" where none is
    known; `instead`, what helps without it; `why` nothing can be changed, or "".
    """

    change: str
    instead: str
    why: str = ""

    def text(self) -> str:
        """In one line."""
        if self.change:
            return f"remedy: {self.change}, or {self.instead}"
        return f"{self.why}; instead: {self.instead}" if self.why else f"remedy: {self.instead}"


_ROWS = (
    Filesystem(
        "rclone",
        ("fuse.rclone",),
        source="rclone",
        never_keeps=True,
        instead="rclone copy {source} FOLDER onto a local disk, and load it from there",
        pread=False,  # parallel pieces reopen its streams
        known_from="rclone's cmd/mount/file.go: Open() asks for no kept pages; tried",
    ),
    Filesystem(
        "Mountpoint for Amazon S3",
        source="mountpoint-s3",
        never_keeps=True,
        instead="aws s3 cp --recursive s3://BUCKET/PREFIX FOLDER onto a local disk, and load it "
        "from there",
        known_from="mountpoint-s3's sources: open() is answered without FOPEN_KEEP_CACHE",
    ),
    Filesystem(
        "3FS",
        ("fuse.hf3fs",),
        source=r"hf3fs\..*",
        never_keeps=True,
        instead=_COPY,
        known_from="3FS's src/fuse: cached while a file is open, emptied at open()",
    ),
    Filesystem(
        "mergerfs",
        ("fuse.mergerfs",),
        source="mergerfs",
        emptied=_MERGERFS,
        uncached=_MERGERFS,
        known_from="mergerfs(1); tried",
    ),
    Filesystem(
        "sshfs",
        ("fuse.sshfs",),
        source="sshfs|[^/@:]+@[^/:]+:.*",
        emptied=_KEEP,
        uncached=_NO_DIRECT_IO,
        known_from="sshfs(1); tried",
    ),
    Filesystem(
        "s3fs",
        ("fuse.s3fs",),
        source="s3fs",
        emptied=_KEEP,
        uncached=_NO_DIRECT_IO,
        known_from="s3fs(1); tried",
    ),
    Filesystem(
        "JuiceFS",
        ("fuse.juicefs",),
        source="JuiceFS:.*",
        emptied="run it once more, pages are kept from a file's second open() on",
        forgets="forgets pages 12 h after their last use",
        known_from="JuiceFS's sources; tried",
    ),
    Filesystem(
        "gcsfuse",
        ("fuse.gcsfuse",),
        source="gcsfuse",
        uncached="mount it without direct I/O",
        known_from="gcsfuse's sources: pages are always kept",
    ),
    Filesystem(
        "goofys",
        ("fuse.goofys",),
        source="goofys",
        known_from="its name alone",
    ),
    Filesystem(
        "hf-mount",
        ("fuse.hf-mount",),
        source="hf-mount",
        uncached="mount it without direct I/O",
        known_from="hf-mount's sources: pages are kept unless direct I/O is asked for",
    ),
    Filesystem(
        "BlobFuse2",
        ("fuse.blobfuse2",),
        source="blobfuse2",
        emptied="leave direct-io out of libfuse in its configuration",
        uncached="leave direct-io out of libfuse in its configuration",
        known_from="blobfuse2's setup/baseConfig.yaml and sources",
    ),
    Filesystem(
        "GlusterFS",
        ("fuse.glusterfs",),
        emptied="mount it with fopen-keep-cache=true",
        uncached="mount it with direct-io-mode=disable",
        known_from="mount.glusterfs(8); tried: keeps pages by default",
    ),
    Filesystem(
        "ceph-fuse",
        ("fuse.ceph-fuse",),
        source="ceph-fuse",
        emptied=_CEPH_FUSE,
        uncached=_CEPH_FUSE,
        known_from="Ceph's options of the FUSE client; tried: keeps pages by default",
    ),
    Filesystem(
        "MooseFS",
        ("fuse.mfs", "fuse.moosefs"),
        source="mfs#.*",
        emptied=_MOOSEFS,
        uncached=_MOOSEFS,
        known_from="mfsmount(8)",
    ),
    Filesystem(
        "DAOS dfuse",
        ("fuse.daos",),
        source="dfuse",
        emptied=_DAOS,
        uncached=_DAOS,
        forgets="forgets pages 10 min after a file was closed last",
        known_from="DAOS's guide to its filesystem",
    ),
    Filesystem(
        "bindfs",
        ("fuse.bindfs",),
        emptied=_KEEP,
        uncached=_NO_DIRECT_IO,
        known_from="bindfs(1); tried",
    ),
    Filesystem(
        "gocryptfs",
        ("fuse.gocryptfs",),
        emptied="mount it with -kernel_cache",
        known_from="gocryptfs(1)",
    ),
    Filesystem(
        "squashfuse",
        ("fuse.squashfuse", "fuse.squashfuse_ll"),
        source="squashfuse(_ll)?",
        instead="mount the image by the kernel, mount -t squashfs -o loop",
        known_from="tried: keeps pages by default",
    ),
    Filesystem(
        "ntfs-3g or another disk through FUSE",
        ("fuseblk",),
        emptied=_NTFS,
        uncached=_NTFS,
        known_from="ntfs-3g(8); tried: keeps pages, answers one read at a time",
    ),
    Filesystem(
        "virtiofs",
        ("virtiofs",),
        emptied=_VIRTIOFS,
        uncached=_VIRTIOFS,
        known_from="virtiofsd(1); tried",
    ),
    Filesystem(
        "9p",
        ("9p",),
        emptied=_9P,
        uncached=_9P,
        known_from="Linux' filesystems/9p.rst; tried: cache=readahead loses pages at close()",
    ),
    Filesystem(
        "SMB",
        ("cifs", "smb3"),
        emptied=_SMB,
        uncached=f"{_SMB}, and without forcedirectio",
        read_ahead="rasize",
        known_from="mount.cifs(8); tried: cache=strict loses pages at close()",
    ),
    Filesystem("NFS", ("nfs", "nfs4"), known_from="measured: docs/filesystems.md"),
    Filesystem("CephFS", ("ceph",), read_ahead="rasize", known_from="mount.ceph(8); tried"),
    Filesystem(
        "Lustre", ("lustre",), read_ahead="own", known_from="Lustre's llite.*.max_read_ahead_mb"
    ),
    Filesystem(
        "GPFS",
        ("gpfs", "mmfs"),
        instead=f"{PREAD}, with a pagepool that holds the checkpoint, mmchconfig pagepool=SIZE",
        read_ahead="own",
        known_from="mmchconfig(8): its cache is the pagepool",
    ),
    Filesystem(
        "BeeGFS",
        ("beegfs", "beegfs_nodev"),
        emptied=_BEEGFS,
        uncached=_BEEGFS,
        read_ahead="own",
        known_from="BeeGFS's client side caching modes",
    ),
    Filesystem(
        "WekaFS",
        ("wekafs", "weka"),
        uncached="mount it without forcedirect",
        read_ahead="own",
        known_from="Weka's mount options",
    ),
)

_OTHER_FUSE = Filesystem("", emptied=_LIBFUSE, uncached=_NO_DIRECT_IO)
_UNKNOWN = Filesystem("")
_BY_TYPE = {mount_type: row for row in _ROWS for mount_type in row.types}


def known() -> tuple[Filesystem, ...]:
    """All rows."""
    return _ROWS


def filesystem_of(mount_type: str, source: str) -> Filesystem:
    """The row of a mount; one without a name where it is not known."""
    if row := _BY_TYPE.get(mount_type):
        return row
    if mount_type == "fuse":
        for row in _ROWS:
            if row.source and re.fullmatch(row.source, source, re.DOTALL):
                return row
    return _OTHER_FUSE if mount_type.startswith("fuse") else _UNKNOWN


def remedy_of(mount_type: str, source: str, keeping: str, below: str = "") -> Remedy:
    """What helps where a mount was found not to keep pages; `keeping` as the core has it, `below`
    where in the filesystem the checkpoint lies.
    """
    row = filesystem_of(mount_type, source)
    change = row.uncached if keeping == UNCACHED else row.emptied
    below = below.strip("/")
    if below not in ("", "."):
        source = source + below if source.endswith(":") else f"{source.rstrip('/')}/{below}"
    instead = row.instead.replace("{source}", shlex.quote(source))
    if row.pread and PREAD not in instead:
        instead = f"{instead}, or {PREAD}" if instead else PREAD
    why = f"{row.name} has no option that keeps pages" if row.never_keeps else ""
    return Remedy(change, instead or _COPY, why)
