"""Whether the kernel takes page cache back although memory is free: DAMON's paging out.

It pages out what nothing has accessed for a while; a page that was brought in and that no process
maps counts as that. /proc/vmstat counts none of it among what is reclaimed. Reads a few small files
of /sys, which may be root's alone; any thread.

Source: Documentation/admin-guide/mm/damon/usage.rst and reclaim.rst of Linux.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_KDAMONDS = "sys/kernel/mm/damon/admin/kdamonds"
_MODULE = "sys/module/damon_reclaim/parameters"
_FILTERS = ("core_filters", "ops_filters", "filters")


@dataclass(frozen=True)
class ProactiveReclaim:
    """One scheme by which pages go: those that were not accessed for `unused_seconds`, as far as
    DAMON can tell, `bytes_per_second` at most (None: no limit). `only_when_short`: while little
    memory is free. `source` is its folder.
    """

    source: str
    unused_seconds: float
    bytes_per_second: float | None
    only_when_short: bool


def proactive_reclaims(root: Path = Path("/")) -> tuple[ProactiveReclaim, ...]:
    """Those in force that take page cache; empty also where this user may not look. `root` stands
    before every path.
    """
    found = [*_schemes(root), *_module(root)]
    return tuple(found)


def _schemes(root: Path) -> Iterator[ProactiveReclaim]:
    for kdamond in _numbered(root / _KDAMONDS):
        if _text(kdamond / "state") != "on":
            continue
        for context in _numbered(kdamond / "contexts"):
            if _text(context / "operations") != "paddr":  # else one process is looked at
                continue
            interval = _number(context / "monitoring_attrs" / "intervals" / "aggr_us")
            for scheme in _numbered(context / "schemes"):
                if _text(scheme / "action") != "pageout" or not _takes_file_pages(scheme):
                    continue
                yield ProactiveReclaim(
                    source=f"/{scheme.relative_to(root)}",
                    unused_seconds=_number(scheme / "access_pattern/age/min") * interval / 1e6,
                    bytes_per_second=_rate(
                        _number(scheme / "quotas/bytes"),
                        _number(scheme / "quotas/reset_interval_ms"),
                    ),
                    only_when_short=_text(scheme / "watermarks/metric") not in ("", "none"),
                )


def _module(root: Path) -> Iterator[ProactiveReclaim]:
    folder = root / _MODULE
    if _text(folder / "enabled") != "Y":
        return
    yield ProactiveReclaim(
        source=f"/{_MODULE}",
        unused_seconds=_number(folder / "min_age") / 1e6,
        bytes_per_second=_rate(
            _number(folder / "quota_sz"), _number(folder / "quota_reset_interval_ms")
        ),
        only_when_short=True,
    )


def _takes_file_pages(scheme: Path) -> bool:
    """Not where a filter leaves out all that is not anonymous, or all that is not mapped's
    opposite: what was only brought in is mapped by no one.
    """
    left_out = {("anon", "N"), ("active", "N"), ("unmapped", "Y")}
    for kind in _FILTERS:
        for each in _numbered(scheme / kind):
            is_allowed = _text(each / "allow") == "Y"
            rule = (_text(each / "type"), _text(each / "matching"))
            if not is_allowed and rule in left_out:
                return False
    return True


def _rate(size_bytes: int, milliseconds: int) -> float | None:
    return size_bytes * 1000 / milliseconds if size_bytes and milliseconds else None


def _numbered(folder: Path) -> list[Path]:
    try:
        names = [each.name for each in folder.iterdir() if each.name.isdigit()]
    except OSError:
        return []
    return [folder / name for name in sorted(names, key=int)]


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
