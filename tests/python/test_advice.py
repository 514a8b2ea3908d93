"""What `shardahead doctor` advises, and the page it prints: pure functions of facts. Reads nothing.

What it finds on this machine is in test_doctor.py, what it says of pages that do not stay, of the
queue of FUSE and of settings in test_remedies.py.
"""

from __future__ import annotations

import errno
import json
import shlex
from dataclasses import replace
from typing import Any

import pytest
from conftest import KIB, MIB
from doctor_support import DISK, FUSE, GIB, NFS, facts, measured, not_measured, on, only

from shardahead import MemoryBudget, MemoryLimit
from shardahead.command.advice import advise
from shardahead.command.doctor import as_dict, as_text
from shardahead.node.limits import UNSEEN_OWNER, PidsLimit
from shardahead.node.stripes import FileStripes
from shardahead.prefetch.options import settings_in_force

# ---- what to change ----


def test_nothing_is_wrong() -> None:
    assert advise(facts()) == []
    assert advise(facts(on(FUSE), on(DISK))) == []
    assert as_text(facts(), []).endswith("nothing to change was found")


def test_readahead_of_nfs() -> None:
    found = on(replace(NFS, read_ahead_bytes=128 * KIB), measurement=measured(900, 1000, 300))
    advice = only(facts(found))
    assert "128 KiB" in advice.problem
    assert "30 % of four streams" in advice.problem
    assert advice.commands == ("echo 15360 > /sys/class/bdi/0:53/read_ahead_kb",)
    assert advice.root
    assert "[nfsrahead] nfs4=15360" in advice.keep[0]
    assert 'SUBSYSTEM=="bdi"' in advice.keep[1]
    assert 'ATTR{read_ahead_kb}="15360"' in advice.keep[1]


def test_readahead_that_plain_readers_do_not_miss_is_left_alone() -> None:
    mount = replace(NFS, read_ahead_bytes=128 * KIB)
    assert advise(facts(on(mount, measurement=measured(900, 1000, 900)))) == []
    # Where nothing could be measured, what is usual counts, and that is said.
    untold = not_measured("residency_unknown")
    assert "nothing could be measured" in only(facts(on(mount, measurement=untold))).problem
    local = replace(DISK, read_ahead_bytes=128 * KIB)
    assert advise(facts(on(local, measurement=untold))) == []


@pytest.mark.parametrize("outcome", ["all_resident", "mostly_resident"])
def test_where_all_is_resident_nothing_is_guessed_and_the_way_to_measure_is_told(
    outcome: str,
) -> None:
    mount = replace(NFS, read_ahead_bytes=128 * KIB)
    found = on(mount, resident_bytes=3 * GIB, measurement=not_measured(outcome))
    advice = only(facts(found, selection=("--include=*Q4 K*",)))
    assert "the speed of /mnt/my models cannot be measured" in advice.problem
    how_much = "all 4.00 GiB are" if outcome == "all_resident" else "3.00 GiB of 4.00 GiB are"
    assert how_much in advice.problem
    assert advice.commands == (
        "shardahead evict '--include=*Q4 K*' '/mnt/my models/m'",
        "shardahead doctor '--include=*Q4 K*' '/mnt/my models/m'",
    )
    page = as_text(facts(found), [advice])
    assert "nothing to change" not in page
    other = on(DISK, measurement=measured(900, 1000, 950))
    assert "speed of /mnt/my models cannot" in only(facts(found, other)).problem
    both = facts(found, replace(found, mount=DISK))
    assert "the speed of /mnt/my models and / cannot be measured" in advise(both)[0].problem


def test_readahead_of_fuse_is_kept_by_its_mount_point() -> None:
    found = on(replace(FUSE, read_ahead_bytes=0), measurement=measured(900, 1000, 100))
    advice = only(facts(found))
    assert advice.commands == ("echo 4096 > /sys/class/bdi/0:53/read_ahead_kb",)
    assert "$(mountpoint -d '/mnt/my models')" in advice.keep[0]


def test_readahead_of_a_disk_is_kept_by_its_name() -> None:
    local = replace(DISK, read_ahead_bytes=128 * KIB)
    advice = only(facts(on(local, disk="sda", measurement=measured(900, 1000, 500))))
    assert advice.commands == ("echo 4096 > /sys/dev/block/8:1/../queue/read_ahead_kb",)
    assert 'KERNEL=="sda", ATTR{queue/read_ahead_kb}="4096"' in advice.keep[0]


def test_readahead_that_is_a_mount_option_or_not_the_kernels() -> None:
    ceph = replace(NFS, type="ceph", read_ahead_bytes=128 * KIB)
    slow = measured(900, 1000, 300)
    assert "rasize=15728640" in only(facts(on(ceph, measurement=slow))).keep[0]
    assert advise(facts(on(replace(ceph, type="lustre"), measurement=slow))) == []
    assert advise(facts(on(replace(NFS, read_ahead_bytes=None), measurement=slow))) == []


def test_nfs_options() -> None:
    options = ("ro", "vers=3", "rsize=65536", "proto=tcp", "sec=krb5")
    advice = only(facts(on(replace(NFS, options=options, request_bytes=64 * KIB))))
    assert "64.0 KiB" in advice.problem
    assert advice.commands == (
        "umount '/mnt/my models' && mount -t nfs -o ro,vers=3,sec=krb5,rsize=1048576,nconnect=4 "
        "filer:/models '/mnt/my models'",
    )
    assert shlex.split(advice.commands[0])[-1] == "/mnt/my models"
    rdma = replace(NFS, options=("vers=4.2", "rsize=1048576", "proto=rdma"))
    assert advise(facts(on(rdma))) == []


def test_files_on_one_target_of_lustre() -> None:
    lustre = replace(NFS, type="lustre", source="mgs@tcp:/scratch", options=("rw",))
    stripes = (
        FileStripes("/mnt/my models/m/1", 3 * GIB, MIB, 1),
        FileStripes("/mnt/my models/m/2", GIB, MIB, 1),
        FileStripes("/mnt/my models/m/3", 3 * GIB, 4 * MIB, 8),
        FileStripes("/mnt/my models/m/4", 2 * GIB, MIB, 1),
    )
    found = facts(on(lustre, stripes=stripes))
    advice = only(found)
    assert advice.problem.startswith("2 of 4 files are larger than 1.00 GiB")
    assert advice.commands == (
        "lfs migrate -c -1 '/mnt/my models/m/1'",
        "lfs migrate -c -1 '/mnt/my models/m/4'",
    )
    assert advice.keep == ("lfs setstripe -c -1 '/mnt/my models/m', for new files",)
    page = as_text(found, [advice])
    assert (
        "stripes     3 files in stripes of 1.00 MiB on 1 target; 1 file in stripes of\n"
        "            4.00 MiB on 8 targets\n" in page
    )
    document = json.loads(json.dumps(as_dict(found, [advice])))
    assert document["mounts"][0]["stripes"][2]["stripe_count"] == 8
    assert advise(facts(on(lustre, stripes=stripes[1:3]))) == []


def test_files_of_others() -> None:
    found = on(
        NFS,
        untold=3,
        resident_bytes=None,
        residency_source="unknown",
        residency_reason="not the owner",
        owners=(("model owner", 3), ("worker", 1)),
        measurement=not_measured("residency_unknown"),
    )
    advice = only(facts(found))
    assert "3 of 4 files (not the owner)" in advice.problem
    assert advice.commands == ("sudo -u 'model owner' shardahead doctor '/mnt/my models/m'",)
    assert "residency unknown: not the owner" in as_text(facts(found), [])


def test_a_device_that_gets_slower_with_more_streams() -> None:
    advice = only(facts(on(DISK, measurement=measured(200, 100, 200))))
    assert advice.commands == ("export SHARDAHEAD_THREADS=1",)


@pytest.mark.parametrize(
    ("kernel", "seccomp", "words"),
    [
        ("6.8.0", "filter", "seccomp filter"),
        ("6.8.0", "none", "has no cachestat"),
        ("5.15.0-100", "filter", "Linux 6.5 has it"),
        ("strange", "filter", "Linux 6.5 has it"),
    ],
)
def test_without_cachestat(kernel: str, seccomp: str, words: str) -> None:
    limits = {"kernel": kernel, "seccomp": seccomp}
    assert words in only(facts(on(NFS, residency_source="mincore"), limits=limits)).problem


@pytest.mark.parametrize(
    ("kernel", "seccomp", "errno_value", "words"),
    [
        ("6.8.0", "filter", errno.ENOSYS, "seccomp filter"),
        ("6.8.0", "none", errno.EPERM, "seccomp filter"),  # the kernel itself would not refuse it
        ("6.8.0", "none", errno.ENOSYS, "has no cachestat"),
        ("5.15.0", "filter", errno.ENOSYS, "Linux 6.5 has it"),
    ],
)
def test_why_cachestat_does_not_answer(
    kernel: str, seccomp: str, errno_value: int, words: str
) -> None:
    found = on(NFS, residency_source="mincore", cachestat_errno=errno_value)
    assert words in only(facts(found, limits={"kernel": kernel, "seccomp": seccomp})).problem


@pytest.mark.parametrize("seccomp", ["none", "filter"])
@pytest.mark.parametrize("errno_value", [0, errno.EOPNOTSUPP])
def test_of_an_overlay_cachestat_tells_nothing_and_nothing_is_wrong(
    seccomp: str, errno_value: int
) -> None:
    overlay = replace(NFS, type="overlay", mount_class="local", options=("rw",))
    found = on(overlay, residency_source="mincore", cachestat_errno=errno_value)
    said = facts(found, limits={"kernel": "6.18.0", "seccomp": seccomp})
    assert advise(said) == []
    page = " ".join(as_text(said, []).split())
    assert "(mincore; of an overlay cachestat tells nothing)" in page


def test_no_command_for_an_owner_who_is_not_shown() -> None:
    found = on(
        NFS,
        resident_bytes=None,
        residency_source="unknown",
        owners=((UNSEEN_OWNER, 4),),
        untold=4,
        measurement=not_measured("residency_unknown"),
    )
    assert only(facts(found)).commands == ()


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("/sys/fs/cgroup/pod", "/sys/fs/cgroup/pod/memory.max /sys/fs/cgroup/pod/memory.high"),
        ("/sys/fs/cgroup/memory/job", "/sys/fs/cgroup/memory/job/memory.limit_in_bytes"),
    ],
)
def test_a_cgroup_that_is_too_small(source: str, files: str) -> None:
    tight = MemoryLimit(source, 3 * GIB, GIB, 0, 2 * GIB)
    memory = MemoryBudget(2 * GIB - 256 * MIB, 256 * MIB, tight, (tight,))
    advice = only(facts(memory=memory))
    (command,) = advice.commands
    assert command.endswith(f" | tee {files}")
    limit = int(command.split()[1])
    free = limit - GIB
    assert free - max(free // 8, 256 * MIB) >= 4 * GIB  # then all of it fits
    assert limit < 6 * GIB
    assert advice.root


def test_a_machine_that_is_too_small() -> None:
    machine = MemoryLimit("/proc/meminfo", 2 * GIB, 0, 0, 2 * GIB)
    advice = only(facts(memory=MemoryBudget(GIB, GIB, machine, (machine,))))
    assert advice.commands == ()
    assert "4.00 GiB are not resident and 1.00 GiB fit" in advice.problem
    resident = on(NFS, resident_bytes=4 * GIB)
    assert advise(facts(resident, memory=MemoryBudget(GIB, GIB, machine, (machine,)))) == []
    assert advise(facts(memory=MemoryBudget(None, 0, None, ()))) == []


@pytest.mark.parametrize(
    ("limits", "words", "command"),
    [
        ({"board_writable": False}, "cannot be written to", "SHARDAHEAD_BOARD_FOLDER"),
        ({"board_free_bytes": 0}, "is full", "SHARDAHEAD_BOARD_FOLDER"),
        ({"open_files": 16}, "may open 16 files", "ulimit -n 1024"),
        (
            {"pids": PidsLimit("/sys/fs/cgroup/pod", 100, 90)},
            "allows 100",
            "echo max > /sys/fs/cgroup/pod/pids.max",
        ),
        ({"disabled": True}, "SHARDAHEAD_DISABLE", "unset SHARDAHEAD_DISABLE"),
        (
            {"unread_variables": ("SHARDAHEAD_A B",)},
            "nothing reads the variable SHARDAHEAD_A B",
            "unset 'SHARDAHEAD_A B'",
        ),
    ],
)
def test_limits_of_the_process(limits: dict[str, Any], words: str, command: str) -> None:
    advice = only(facts(limits=limits))
    assert words in advice.problem
    assert command in advice.commands[0]


def test_the_page() -> None:
    found = facts(on(replace(NFS, read_ahead_bytes=128 * KIB), measurement=measured(900, 999, 300)))
    page = as_text(found, advise(found))
    assert max(map(len, page.splitlines())) <= 80
    for words in (
        "4 files, 4.00 GiB",
        "/mnt/my models: nfs4 from filer:/models",
        "vers 4.2, rsize 1048576, nconnect 4",
        "128 KiB (/sys/class/bdi/0:53/read_ahead_kb)",
        "2 ms, median of 16 reads",
        "999 MB/s",
        "52.0 GiB: /proc/meminfo allows",
        "0 of 1 (default)",
        "seccomp filter",
        "/dev/shm: writable, 1.00 GiB free",
        "now, as root: echo 15360 >",
        "settings    the defaults",
    ):
        assert words in page
    document = json.loads(json.dumps(as_dict(found, advise(found))))
    assert document["mounts"][0]["measurement"]["streams"]["bytes_per_second"] == pytest.approx(
        999e6
    )
    assert document["advice"][0]["root"] is True


def test_a_budget_that_somebody_has_set_is_what_ends_a_warm() -> None:
    settings = settings_in_force({"SHARDAHEAD_MEMORY_BUDGET_BYTES": "1GiB"})
    advice = only(facts(settings=settings))
    assert "4.00 GiB are not resident and SHARDAHEAD_MEMORY_BUDGET_BYTES allows 1.00 GiB" in (
        advice.problem
    )
    assert advice.commands == ("unset SHARDAHEAD_MEMORY_BUDGET_BYTES",)
    enough = settings_in_force({"SHARDAHEAD_MEMORY_BUDGET_BYTES": "8GiB"})
    assert advise(facts(settings=enough)) == []


def test_what_cannot_be_read_is_to_be_named_by_warm() -> None:
    advice = only(facts(on(NFS, pending_bytes=4096)))
    assert advice.problem.startswith("4.00 KiB are being read, or could not be read: ")
    assert advice.commands == ("shardahead warm '/mnt/my models/m'",)
