"""What `shardahead doctor` advises where pages do not stay, where the queue of FUSE limits, and of
settings. Reads nothing.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from doctor_support import FUSE, NFS, facts, measured, not_measured, on, only

from shardahead.command.advice import advise
from shardahead.command.doctor import as_dict, as_text
from shardahead.command.facts import Facts
from shardahead.node.filesystems import EMPTIED, UNCACHED
from shardahead.node.fuse_queue import FuseQueue
from shardahead.prefetch.options import settings_in_force

# ---- pages that do not stay ----


def test_pages_that_did_not_stay() -> None:
    advice = only(facts(on(FUSE, measurement=measured(900, 1000, 950, kept=0))))
    assert "kernel_cache" in advice.keep[0]
    assert "0 B of 286 MiB" in advice.problem
    slow = measured(900, 100, 30, kept=0)
    assert len(advise(facts(on(replace(FUSE, read_ahead_bytes=0), measurement=slow)))) == 1
    assert "memory is short" in only(facts(on(NFS, measurement=measured(9, 9, 9, kept=0)))).problem


@pytest.mark.parametrize(
    ("keeping", "how", "option"),
    [
        (EMPTIED, "every open() of a file empties", "kernel_cache"),
        (UNCACHED, "reads bypass", "without direct_io"),
    ],
)
def test_what_a_page_showed_decides_the_remedy(keeping: str, how: str, option: str) -> None:
    found = measured(900, 1000, 950, kept=0, keeping=keeping)
    advice = only(facts(on(FUSE, measurement=found)))
    assert how in advice.problem
    assert option in advice.keep[0]
    assert 'mode="pread"' in advice.instead[0]


def test_no_option_is_recommended_where_there_is_none() -> None:
    rclone = replace(FUSE, type="fuse.rclone", source="s3:my models")
    gone = measured(900, 1000, 950, kept=0, keeping=EMPTIED)
    advice = only(facts(on(rclone, measurement=gone)))
    assert advice.problem.endswith("rclone has no option that keeps pages")
    assert advice.keep == ()
    assert advice.instead == (
        "rclone copy 's3:my models/m' FOLDER onto a local disk, and load it from there",
    )
    assert "instead:" in as_text(facts(on(rclone)), [advice])
    # Unmeasured, what is known is told as such; measured otherwise, what was measured counts.
    unmeasured = only(facts(on(rclone, measurement=not_measured("not_allowed"))))
    assert "was not measured. rclone has no option that keeps pages" in unmeasured.problem
    assert advise(facts(on(rclone))) == []


def test_pages_that_are_lost_when_a_file_is_closed() -> None:
    smb = replace(NFS, type="cifs", source="//filer/models", options=("rw", "cache=strict"))
    gone = measured(900, 1000, 950, kept=0, keeping="keeps")
    advice = only(facts(on(smb, measurement=gone)))
    assert "lost when a file is closed" in advice.problem
    assert "cache=ro" in advice.keep[0]


# ---- the queue of FUSE ----

PATH = "/sys/fs/fuse/connections/53"


def queued(most: int | None, peak: int | None, megabytes_per_second: float) -> Facts:
    found = measured(10, megabytes_per_second, megabytes_per_second, peak_requests=peak)
    queue = FuseQueue(PATH, most, 9, "")
    return facts(on(FUSE, fuse_queue=queue, measurement=found))


def test_a_queue_that_limits() -> None:
    # 12 requests of 128 KiB in 2 ms: 786 MB/s.
    advice = only(queued(12, 100, 700))
    assert "up to 100 requests waited, and 12 may be in flight" in advice.problem
    assert "786 MB/s" in advice.problem
    assert advice.commands == (
        f"echo 512 > {PATH}/max_background",
        f"echo 384 > {PATH}/congestion_threshold",
    )
    assert advice.root
    assert "$(mountpoint -d '/mnt/my models' | cut -d: -f2) && echo 512 >" in advice.keep[0]


def test_of_a_mount_of_a_device_the_queue_is_kept_by_the_number_of_the_connection() -> None:
    # 8:17 as the kernel writes it in one number; `cut -d: -f2` would give 17.
    path = "/sys/fs/fuse/connections/8388625"
    ntfs = replace(FUSE, type="fuseblk", source="/dev/sdb1", device="8:17")
    found = on(
        ntfs,
        fuse_queue=FuseQueue(path, 12, 9, ""),
        measurement=measured(10, 700, 700, peak_requests=100),
    )
    advice = only(facts(found))
    assert advice.commands[0] == f"echo 512 > {path}/max_background"
    assert advice.keep[0].startswith(f"after each mount: cd {path} && echo 512 > max_background")
    assert "mountpoint" not in advice.keep[0]


@pytest.mark.parametrize(
    ("most", "peak", "megabytes_per_second"),
    [
        (12, 12, 700),  # no more waited
        (12, 100, 300),  # the link is the limit
        (12, None, 700),  # not told
        (None, None, 700),
    ],
)
def test_a_queue_that_does_not_limit(
    most: int | None, peak: int | None, megabytes_per_second: float
) -> None:
    assert advise(queued(most, peak, megabytes_per_second)) == []


def test_the_page_says_what_the_queue_is() -> None:
    page = as_text(queued(12, 40, 300), [])
    assert "fuse queue  max_background 12, congestion_threshold 9; up to 40 requests" in page
    queue = FuseQueue(PATH, reason="only root may")
    assert "fuse queue  not told: only root may" in as_text(facts(on(FUSE, fuse_queue=queue)), [])


# ---- settings ----


def test_settings_with_their_origin() -> None:
    assert "settings    the defaults" in as_text(facts(), [])
    environ = {"SHARDAHEAD_THREADS": "8", "SHARDAHEAD_BLOCK_SIZE_MB": "4"}
    found = facts(settings=settings_in_force(environ))
    page = as_text(found, [])
    assert "threads 8 (SHARDAHEAD_THREADS), block_size 4.00 MiB" in page
    assert "(SHARDAHEAD_BLOCK_SIZE_MB)" in page
    document = as_dict(found, [])
    assert {"name": "threads", "value": 8, "origin": "SHARDAHEAD_THREADS"} in document["settings"]
    assert {"name": "mode", "value": "auto", "origin": "default"} in document["settings"]


def test_rates_are_rates_and_0_is_what_it_means() -> None:
    def said(**environ: str) -> str:
        variables = {f"SHARDAHEAD_{name}": value for name, value in environ.items()}
        page = as_text(facts(settings=settings_in_force(variables)), [])
        return " ".join(page[page.index("settings ") :].split())

    assert "rate_limit 200 MB/s (SHARDAHEAD_RATE_LIMIT)" in said(RATE_LIMIT="200MB/s")
    assert "rate_limit no limit (" in said(RATE_LIMIT="0")
    assert "window_bytes no limit (" in said(WINDOW_BYTES="0")
    assert "window_bytes 4.00 MiB (" in said(WINDOW_BYTES="4MiB")
    assert "inflight_bytes found by measuring (" in said(INFLIGHT_BYTES="0")
    assert "memory_budget_bytes 0 B (" in said(MEMORY_BUDGET_BYTES="0")


def test_a_misspelt_variable_and_the_one_that_is_meant() -> None:
    found = facts(limits={"unread_variables": ("SHARDAHEAD_TREADS", "SHARDAHEAD_XYZ")})
    first, second = advise(found)
    assert "SHARDAHEAD_TREADS: did you mean SHARDAHEAD_THREADS?" in first.problem
    assert first.commands == ("unset SHARDAHEAD_TREADS",)
    assert "docs/settings.md" in second.problem
    assert as_dict(found, [])["unread_variables"] == [
        {"name": "SHARDAHEAD_TREADS", "meant": "SHARDAHEAD_THREADS"},
        {"name": "SHARDAHEAD_XYZ", "meant": None},
    ]
