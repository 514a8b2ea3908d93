"""What DAMON is set to page out, from folders that stand for /sys; and what doctor makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from doctor_support import NFS, facts, on

from shardahead.command.advice import advise
from shardahead.command.doctor import as_text
from shardahead.node.proactive_reclaim import ProactiveReclaim, proactive_reclaims

KDAMONDS = "sys/kernel/mm/damon/admin/kdamonds"
SCHEME = f"{KDAMONDS}/0/contexts/0/schemes/0"
MODULE = "sys/module/damon_reclaim/parameters"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def scheme(**changes: str) -> dict[str, str]:
    """A scheme that pages out file pages alone; names with __ for the folders between."""
    files = {
        f"{KDAMONDS}/nr_kdamonds": "1",
        f"{KDAMONDS}/0/state": "on",
        f"{KDAMONDS}/0/contexts/0/operations": "paddr",
        f"{KDAMONDS}/0/contexts/0/monitoring_attrs/intervals/aggr_us": "5000000",
        f"{SCHEME}/action": "pageout",
        f"{SCHEME}/access_pattern/age/min": "12",
        f"{SCHEME}/quotas/bytes": "134217728",
        f"{SCHEME}/quotas/reset_interval_ms": "2000",
        f"{SCHEME}/watermarks/metric": "none",
        f"{SCHEME}/ops_filters/0/type": "anon",
        f"{SCHEME}/ops_filters/0/matching": "Y",
        f"{SCHEME}/ops_filters/0/allow": "N",
    }
    for name, text in changes.items():
        path = name.replace("__", "/")
        files[f"{KDAMONDS}/0/{path}" if path in ("state",) else f"{SCHEME}/{path}"] = text
    return files


def test_a_scheme_is_told_with_its_age_and_its_quota(tmp_path: Path) -> None:
    write(tmp_path, scheme())
    expected = ProactiveReclaim(f"/{SCHEME}", 60.0, 67108864.0, only_when_short=False)
    assert proactive_reclaims(tmp_path) == (expected,)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "off"},
        {"action": "stat"},
        {"ops_filters__0__matching": "N"},
        {"core_filters__0__type": "active", "core_filters__0__matching": "N"},
        {"filters__0__type": "unmapped", "filters__0__matching": "Y"},
    ],
)
def test_what_takes_no_page_cache_is_not_told(tmp_path: Path, changes: dict[str, str]) -> None:
    write(tmp_path, scheme(**changes))
    assert proactive_reclaims(tmp_path) == ()


def test_a_scheme_of_one_process_is_not_told(tmp_path: Path) -> None:
    write(tmp_path, scheme() | {f"{KDAMONDS}/0/contexts/0/operations": "vaddr"})
    assert proactive_reclaims(tmp_path) == ()


def test_watermarks_and_quotas_may_be_none(tmp_path: Path) -> None:
    write(tmp_path, scheme(watermarks__metric="free_mem_rate", quotas__bytes="0"))
    (found,) = proactive_reclaims(tmp_path)
    assert found.only_when_short
    assert found.bytes_per_second is None


def test_the_module_is_told_where_it_is_enabled(tmp_path: Path) -> None:
    files = {
        f"{MODULE}/enabled": "Y",
        f"{MODULE}/min_age": "120000000",
        f"{MODULE}/quota_sz": "134217728",
        f"{MODULE}/quota_reset_interval_ms": "1000",
    }
    write(tmp_path, files)
    expected = ProactiveReclaim(f"/{MODULE}", 120.0, 134217728.0, only_when_short=True)
    assert proactive_reclaims(tmp_path) == (expected,)
    write(tmp_path, files | {f"{MODULE}/enabled": "N"})
    assert proactive_reclaims(tmp_path) == ()


def test_files_that_are_not_there_or_make_no_sense_are_nothing(tmp_path: Path) -> None:
    assert proactive_reclaims(tmp_path) == ()
    write(tmp_path, scheme(access_pattern__age__min="soon", quotas__bytes="-1"))
    (found,) = proactive_reclaims(tmp_path)
    assert (found.unused_seconds, found.bytes_per_second) == (0.0, None)
    write(tmp_path, {f"{MODULE}/enabled": ""})
    assert len(proactive_reclaims(tmp_path)) == 1
    assert isinstance(proactive_reclaims(), tuple)  # of this machine, whatever there is


def test_doctor_says_that_what_was_warmed_may_go() -> None:
    always = ProactiveReclaim(f"/{SCHEME}", 60.0, 67108864.0, only_when_short=False)
    found = facts(reclaims=(always,))
    (advice,) = [each for each in advise(found) if "DAMON" in each.problem]
    assert "has used for 60 s although memory is free" in advice.problem
    assert "shardahead warm --keep --lock '/mnt/my models/m'" in advice.commands[0]
    page = " ".join(as_text(found, [advice]).split())
    assert "paged out what nothing has used for 60 s, 67 MB/s at most (/sys/kernel" in page
    in_memory = on(replace(NFS, mount_class="memory"), size_bytes=0)
    found = facts(in_memory, reclaims=(always,))
    assert not [each for each in advise(found) if "DAMON" in each.problem]
    short = facts(reclaims=(ProactiveReclaim(f"/{MODULE}", 120.0, None, only_when_short=True),))
    assert not [each for each in advise(short) if "DAMON" in each.problem]
    page = " ".join(as_text(short, []).split())
    assert f"for 120 s, while memory is short (/{MODULE})" in page
