"""What to change, from the facts that facts.py has gathered. Pure functions; no I/O."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator

from shardahead.command.damaged_shards import first_of_damages
from shardahead.command.facts import Facts, MountFacts
from shardahead.command.learned_facts import learning_advice
from shardahead.command.memory_advice import memory_advice
from shardahead.command.piece_of_advice import Advice
from shardahead.environment import meant_by
from shardahead.node.filesystems import filesystem_of, remedy_of
from shardahead.node.limits import UNSEEN_OWNER
from shardahead.node.page_keeping import HOW
from shardahead.units import format_bytes, format_rate

KIB, MIB, GIB = 1024, 1024**2, 1024**3
# 15 requests of 1 MiB, what NFS clients had before Linux 5.4; FUSE and disks need less.
_NETWORK_READ_AHEAD_KIB, _OTHER_READ_AHEAD_KIB = 15360, 4096
_ENOUGH_READ_AHEAD_BYTES = MIB
_RSIZE_BYTES = MIB
_OPEN_FILES = 1024
_SPARE_PIDS = 64
_ONE_TARGET_BYTES = GIB  # what is larger is better read from several
_BOARD_BYTES = MIB
_CACHESTAT_LINUX = (6, 5)
_RESIDENT = ("all_resident", "mostly_resident")
_REQUEST_BYTES = 128 * KIB  # of FUSE, where its mount does not say
_INFLIGHT_BYTES = 64 * MIB  # what a node begins with
_MOST_BACKGROUND = 1024


def advise(facts: Facts) -> list[Advice]:
    """What to do, the most helpful first. Empty where there is nothing."""
    found = [*_disabled(facts), *_unread_variables(facts), *_damaged(facts)]
    found += [*_not_usable(facts), *_all_resident(facts)]
    for mount in facts.mounts:
        found += [*_keeps_pages(mount), *_untold(facts, mount)]
        if mount.measurement.kept:  # else the rates speak of dropped pages
            found += [*_streams(mount), *_read_ahead(mount)]
        found += [*_queue(mount), *_nfs_options(mount), *_stripes(mount), *_cachestat(facts, mount)]
    found += [*memory_advice(facts), *_paged_out(facts), *_board(facts)]
    found += learning_advice(facts.learned, facts.topology.size)
    return [*found, *_open_files(facts), *_processes(facts)]


def _disabled(facts: Facts) -> Iterator[Advice]:
    if facts.limits.disabled:
        yield Advice(
            "SHARDAHEAD_DISABLE is set: nothing is prefetched", ("unset SHARDAHEAD_DISABLE",)
        )


def _unread_variables(facts: Facts) -> Iterator[Advice]:
    for name in facts.limits.unread_variables:
        meant = meant_by(name)
        yield Advice(
            f"nothing reads the variable {name}: "
            + (f"did you mean {meant}?" if meant else "docs/settings.md has those that are read"),
            (f"unset {shlex.quote(name)}",),
        )


def _damaged(facts: Facts) -> Iterator[Advice]:
    if damage := first_of_damages(facts.damage):
        yield Advice(f"a load will fail: {damage}. Fetch again what is damaged")


def _typed(facts: Facts) -> str:
    """The files as they were typed, for another command."""
    return shlex.join([*facts.selection, *facts.paths])


def _all_resident(facts: Facts) -> Iterator[Advice]:
    mounts = [each for each in facts.mounts if each.measurement.outcome in _RESIDENT]
    if not mounts:
        return
    size = format_bytes(sum(each.size_bytes for each in mounts))
    resident = format_bytes(sum(each.resident_bytes or 0 for each in mounts))
    all_of_it = all(each.measurement.outcome == "all_resident" for each in mounts)
    how_much = f"all {size}" if all_of_it else f"{resident} of {size}"
    where = " and ".join(each.mount.mount_point for each in mounts)
    yield Advice(
        f"the speed of {where} cannot be measured: {how_much} are in memory, where a load has "
        "brought them, say. To see what limits it, drop them while nothing loads them and look "
        "again, or look at files there that have not been loaded",
        (f"shardahead evict {_typed(facts)}", f"shardahead doctor {_typed(facts)}"),
    )


def _not_usable(facts: Facts) -> Iterator[Advice]:
    pending = sum(each.pending_bytes for each in facts.mounts)
    if pending:
        yield Advice(
            f"{format_bytes(pending)} are being read, or could not be read: where nothing reads "
            "them now, a load will fail there, and `shardahead warm` names the file and the place",
            (f"shardahead warm {_typed(facts)}",),
        )


def _keeps_pages(found: MountFacts) -> Iterator[Advice]:
    mount, measured = found.mount, found.measurement
    known = filesystem_of(mount.type, mount.source)
    told = measured.outcome == "measured" or measured.keeping == "keeps"
    if measured.kept and (told or not known.never_keeps):
        return
    read, kept = format_bytes(measured.read_bytes), format_bytes(measured.kept_bytes)
    if measured.kept:
        if measured.outcome in _RESIDENT:
            return
        problem = f"{mount.mount_point} was not measured"
    elif measured.keeping in HOW:
        problem = f"{mount.mount_point} does not keep pages: {HOW[measured.keeping]}"
    else:
        problem = f"{mount.mount_point} kept {kept} of {read} in the page cache"
        if measured.keeping == "keeps" or mount.mount_class != "user_space":
            problem += ": memory is short, or pages are lost when a file is closed"
    remedy = remedy_of(mount.type, mount.source, measured.keeping, found.below)
    if remedy.why:
        problem += f". {remedy.why}"
    elif remedy.change:
        problem += ". Prefetching into the page cache is in vain there"
    keeps = (remedy.change,) if remedy.change else ()
    yield Advice(problem, keep=keeps, instead=(remedy.instead,))


def _untold(facts: Facts, found: MountFacts) -> Iterator[Advice]:
    if not found.untold:
        return
    others = [name for name, _ in found.owners if name not in (facts.limits.user, UNSEEN_OWNER)]
    owner = others[0] if others else None
    command = f"sudo -u {shlex.quote(owner or '')} shardahead doctor {_typed(facts)}"
    commands = (command,) if owner else ()
    yield Advice(
        f"the kernel does not tell {facts.limits.user} what is resident of {found.untold} of "
        f"{found.files} files ({found.residency_reason}): prefetching works, but dropped advice "
        "goes unseen, and nothing can be measured",
        commands,
    )


def _streams(found: MountFacts) -> Iterator[Advice]:
    one, many = found.measurement.one_stream, found.measurement.streams
    if one and many and many.bytes_per_second < 0.8 * one.bytes_per_second:
        yield Advice(
            f"{found.mount.mount_point} gets slower with more streams, as disks that seek do",
            ("export SHARDAHEAD_THREADS=1",),
        )


def _read_ahead(found: MountFacts) -> Iterator[Advice]:
    mount = found.mount
    known = filesystem_of(mount.type, mount.source)
    if mount.read_ahead_bytes is None or known.read_ahead == "own":
        return
    if found.measurement.outcome in _RESIDENT:  # it is not guessed at: see _all_resident
        return
    far = mount.mount_class in ("network", "user_space")
    wanted_kib = _NETWORK_READ_AHEAD_KIB if mount.mount_class == "network" else 0
    wanted_kib = wanted_kib or _OTHER_READ_AHEAD_KIB
    plain, streams = found.measurement.plain, found.measurement.streams
    measured = plain is not None and streams is not None
    share = 1.0
    if plain and streams and streams.bytes_per_second:
        share = plain.bytes_per_second / streams.bytes_per_second
    enough = mount.read_ahead_bytes >= (_ENOUGH_READ_AHEAD_BYTES if far else wanted_kib * KIB)
    if enough or (measured and share > 0.8) or (not measured and not far):
        return
    why = (
        f": a plain reader got {100 * share:.0f} % of four streams"
        if measured
        else (", and nothing could be measured")
    )
    yield Advice(
        f"readahead of {mount.mount_point} is {format_bytes(mount.read_ahead_bytes)}{why}. "
        "Readers that do not prefetch, and kernels before 5.18, depend on it",
        (f"echo {wanted_kib} > {mount.read_ahead_path}",),
        tuple(_keep_read_ahead(found, wanted_kib)),
        root=True,
    )


def _keep_read_ahead(found: MountFacts, wanted_kib: int) -> Iterator[str]:
    mount = found.mount
    if mount.type in ("nfs", "nfs4"):
        yield f"/etc/nfs.conf, where nfs-utils has nfsrahead: [nfsrahead] {mount.type}={wanted_kib}"
        yield (
            'else /etc/udev/rules.d/99-nfs-readahead.rules: SUBSYSTEM=="bdi", ACTION=="add", '
            'PROGRAM="/bin/grep -qw %k /proc/fs/nfsfs/volumes", '
            f'ATTR{{read_ahead_kb}}="{wanted_kib}"'
        )
    elif filesystem_of(mount.type, mount.source).read_ahead == "rasize":
        yield f"/etc/fstab: the option rasize={wanted_kib * KIB}"
    elif found.disk:
        yield (
            '/etc/udev/rules.d/99-readahead.rules: ACTION=="add|change", SUBSYSTEM=="block", '
            f'KERNEL=="{found.disk}", ATTR{{queue/read_ahead_kb}}="{wanted_kib}"'
        )
    elif mount.read_ahead_path.startswith(f"/sys/class/bdi/{mount.device}/"):
        where = shlex.quote(mount.mount_point)
        bdi = f'"/sys/class/bdi/$(mountpoint -d {where})/read_ahead_kb"'
        yield f"after each mount, where it is mounted from: echo {wanted_kib} > {bdi}"


def _queue(found: MountFacts) -> Iterator[Advice]:
    """Where more requests waited than the queue of FUSE lets be in flight, and those are too few
    for the rate that was seen.
    """
    queue, measured = found.fuse_queue, found.measurement
    most, peak = queue.max_background if queue else None, measured.peak_requests
    if queue is None or not most or peak is None or peak <= most:
        return
    request = found.mount.request_bytes or _REQUEST_BYTES
    if not measured.streams or not measured.latency_seconds:
        return
    bound = most * request / measured.latency_seconds
    if measured.streams.bytes_per_second < 0.5 * bound:
        return
    # The peak says little of what is wanted: who waits for the queue asks for nothing more.
    wanted = min(_MOST_BACKGROUND, max(2 * most, _INFLIGHT_BYTES // request))
    values = (("max_background", wanted), ("congestion_threshold", wanted * 3 // 4))
    # A mount without a device gets another number with each mount; a device keeps its own.
    folder = queue.path
    if found.mount.device.startswith("0:"):
        where = shlex.quote(found.mount.mount_point)
        folder = f"/sys/fs/fuse/connections/$(mountpoint -d {where} | cut -d: -f2)"
    yield Advice(
        f"the FUSE queue of {found.mount.mount_point} limits: up to {peak} requests waited, and "
        f"{most} may be in flight (max_background), which at {format_bytes(request)} and "
        f"{measured.latency_seconds * 1000:.3g} ms each are {format_rate(bound)}",
        tuple(f"echo {value} > {queue.path}/{name}" for name, value in values),
        (
            f"after each mount: cd {folder} && "
            + " && ".join(f"echo {value} > {name}" for name, value in values),
        ),
        root=True,
    )


def _nfs_options(found: MountFacts) -> Iterator[Advice]:
    mount = found.mount
    if mount.type not in ("nfs", "nfs4"):
        return
    wrong = []
    rsize, connections = mount.request_bytes, mount.option("nconnect")
    if rsize is not None and rsize < _RSIZE_BYTES:
        wrong.append(f"reads of {format_bytes(rsize)} at most (rsize; the server may limit it)")
    if connections is None and mount.option("proto") in (None, "tcp", "tcp6"):
        wrong.append("one connection (nconnect), which many networks give less than the link")
    if not wrong:
        return
    kept = [f"{name}={value}" for name in ("vers", "sec") if (value := mount.option(name))]
    kept = ["ro", *kept] if "ro" in mount.options else kept
    new = [f"rsize={max(rsize or 0, _RSIZE_BYTES)}", f"nconnect={connections or 4}"]
    given = ",".join([*kept, *new])
    source, where = shlex.quote(mount.source), shlex.quote(mount.mount_point)
    yield Advice(
        f"{mount.mount_point} is mounted with {' and '.join(wrong)}",
        (f"umount {where} && mount -t nfs -o {given} {source} {where}",),
        (f"/etc/fstab, besides the options that are there: {','.join(new)}",),
        root=True,
    )


def _stripes(found: MountFacts) -> Iterator[Advice]:
    single = [
        each
        for each in found.stripes
        if each.stripe_count == 1 and each.file_bytes > _ONE_TARGET_BYTES
    ]
    if not single:
        return
    folders = sorted({os.path.dirname(os.path.abspath(each.path)) for each in single})
    yield Advice(
        f"{len(single)} of {found.files} files are larger than {format_bytes(_ONE_TARGET_BYTES)} "
        "and lie on one storage target each: a file comes no faster than that target gives it",
        tuple(f"lfs migrate -c -1 {shlex.quote(each.path)}" for each in single),
        tuple(f"lfs setstripe -c -1 {shlex.quote(folder)}, for new files" for folder in folders),
    )


def _cachestat(facts: Facts, found: MountFacts) -> Iterator[Advice]:
    """Where it does not answer. Of an overlay it cannot: nothing is wrong with the kernel there."""
    if found.residency_source != "mincore" or found.cachestat_errno == errno.EOPNOTSUPP:
        return
    if found.mount.type == "overlay" and not found.cachestat_errno:
        return
    unseen = "pages on their way cannot be seen"
    # What mincore answers the kernel would let cachestat answer, too.
    filtered = found.cachestat_errno in (errno.EPERM, errno.EACCES)
    if filtered or (
        _version(facts.limits.kernel) >= _CACHESTAT_LINUX and facts.limits.seccomp == "filter"
    ):
        yield Advice(
            f"cachestat(2) is refused by a seccomp filter: {unseen}, so what an advise call brings "
            "in is assumed, not measured",
            keep=("the container's seccomp profile: allow cachestat (451)",),
        )
    elif _version(facts.limits.kernel) < _CACHESTAT_LINUX:
        yield Advice(f"Linux {facts.limits.kernel} has no cachestat(2): {unseen}. Linux 6.5 has it")
    else:
        yield Advice(f"Linux {facts.limits.kernel} has no cachestat(2) here: {unseen}")


def _paged_out(facts: Facts) -> Iterator[Advice]:
    """DAMON: what was brought in and is mapped by no one counts as not used."""
    found = [each for each in facts.reclaims if not each.only_when_short]
    if not found or all(each.mount.mount_class == "memory" for each in facts.mounts):
        return
    seconds = min(each.unused_seconds for each in found)
    yield Advice(
        f"this kernel pages out what nothing has used for {seconds:.3g} s although memory is free "
        "(DAMON), pages that were just brought in among them: what `shardahead warm` brought in "
        "may be gone before a load comes for it: warm right before the load, or hold the pages "
        "until it has come",
        (f"shardahead warm --keep --lock {_typed(facts)}",),
    )


def _board(facts: Facts) -> Iterator[Advice]:
    limits = facts.limits
    free = limits.board_free_bytes
    if limits.board_writable and free is not None and free >= _BOARD_BYTES:
        return
    state = "cannot be written to" if not limits.board_writable else "is full"
    yield Advice(
        f"{limits.board_folder} {state}: local ranks cannot share a board, so each takes a fixed "
        "share of the work",
        ("export SHARDAHEAD_BOARD_FOLDER=/tmp",),
        ("containers: --ipc=host or --shm-size=64m of docker run, a memory medium of Kubernetes",),
    )


def _open_files(facts: Facts) -> Iterator[Advice]:
    most = facts.limits.open_files
    if most is not None and most < _OPEN_FILES and facts.files > most // 8:
        yield Advice(
            f"{facts.files} shards, and this process may open {most} files: they are closed and "
            "opened again and again",
            (f"ulimit -n {_OPEN_FILES}",),
        )


def _processes(facts: Facts) -> Iterator[Advice]:
    pids = facts.limits.pids
    if pids is None or pids.limit - pids.used >= _SPARE_PIDS:
        return
    yield Advice(
        f"the cgroup {pids.source} allows {pids.limit} processes and threads and has {pids.used}: "
        "worker threads may not start",
        (f"echo max > {shlex.quote(pids.source + '/pids.max')}",),
        ("where the container gets its limit, e.g. docker run --pids-limit",),
        root=True,
    )


def _version(kernel: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", kernel)
    return tuple(map(int, match.groups())) if match else (0, 0)
