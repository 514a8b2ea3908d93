"""What screens say, from figures and told times alone: rates, lines, names, shares, results."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
from conftest import MIB
from hypothesis import given
from hypothesis import strategies as st

from shardahead.command.progress_text import (
    Beat,
    RecentRate,
    Work,
    begin_line,
    end_line,
    running_line,
)
from shardahead.command.readiness import parse_share, why_not_ready
from shardahead.command.residency_screen import place, shards_shown
from shardahead.command.shard_names import apart, cells_of, shortened
from shardahead.command.tables import shard_row, table_of
from shardahead.command.warm_result import result_line, round_line, tells_why
from shardahead.command.watch import Growth
from shardahead.node.residency import FileResidency
from shardahead.prefetch.progress import Progress
from shardahead.prefetch.report import Report
from shardahead.units import counted, format_bytes, format_seconds, format_share

MB = 10**6


# ---- units ----


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1e-9, "0.001 s"),
        (0.031, "0.031 s"),
        (0.31, "0.31 s"),
        (6.64, "6.6 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.7, "1 h 0 min"),
        (86400, "24 h 0 min"),
    ],
)
def test_a_time(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_only_all_of_it_is_100_percent(part: int, whole: int) -> None:
    assert (format_share(part, whole) == "100.0 %") == (part >= whole)


def test_a_share_is_never_more_than_it_is() -> None:
    assert format_share(999_999, 1_000_000) == "99.9 %"
    assert format_share(1, 3) == "33.3 %"
    assert format_share(0, 0) == "100.0 %"
    assert (counted(1, "shard"), counted(0, "shard")) == ("1 shard", "0 shards")


# ---- progress ----


def at(seconds: float, done: int, read: int | None = None, planned: int = 1000 * MB) -> Progress:
    return Progress(planned, done, done if read is None else read, seconds)


def test_what_could_not_be_read_is_not_there() -> None:
    work = Work(files=2, local_rank=0, local_size=1, own_share=False)
    progress = Progress(1000 * MB, 1000 * MB, 750 * MB, 10, failed_bytes=250 * MB)
    assert end_line(work, progress) == (
        "warm: 715 MiB of 954 MiB (75.0 %), 238 MiB could not be read, 75 MB/s, ended after 10 s"
    )
    assert running_line(work, dataclasses.replace(progress, done_bytes=500 * MB), 75e6) == (
        "warm: 238 MiB of 954 MiB (25.0 %), 238 MiB could not be read, 75 MB/s, 6.7 s left"
    )


def test_a_line_is_due_after_each_interval() -> None:
    beat = Beat(10)
    told = [0, 0.1, 9.9, 10.0, 10.1, 19.9, 20.5, 29.9, 30.0, 75, 79.9, 80.1]
    assert [seconds for seconds in told if beat.is_due(seconds)] == [10.0, 20.5, 30.0, 75, 80.1]


def test_the_rate_is_of_late_and_of_what_was_brought_in() -> None:
    rate = RecentRate(5)
    assert rate.bytes_per_second == 0
    rate.note(at(1, 800 * MB, read=100 * MB))  # 700 MB were resident
    assert rate.bytes_per_second == 100 * MB
    for second in range(2, 30):
        rate.note(at(second, 1000 * MB, read=100 * MB + (second - 1) * 7 * MB))
    assert rate.bytes_per_second == 7 * MB
    for second in range(30, 40):
        rate.note(at(second, 1000 * MB, read=303 * MB))  # nothing comes any more
    assert rate.bytes_per_second == 0


def test_what_two_ranks_read_at_the_same_time_counts_once() -> None:
    work = Work(files=1, local_rank=0, local_size=1, own_share=False)
    assert end_line(work, at(40, 1000 * MB, read=1200 * MB)).split(", ")[1] == "25 MB/s"
    rate = RecentRate(5)
    rate.note(at(4, 100 * MB, read=120 * MB))
    assert rate.bytes_per_second == 25 * MB


def test_the_lines_of_a_run() -> None:
    work = Work(files=8, local_rank=0, local_size=4, own_share=False)
    assert begin_line(work, at(0, 0)) == "warm: 954 MiB, 8 shards, 4 local ranks"
    assert running_line(work, at(10, 250 * MB), 25e6) == (
        "warm: 238 MiB of 954 MiB (25.0 %), 25 MB/s, 30 s left"
    )
    assert running_line(work, at(10, 250 * MB), 0) == "warm: 238 MiB of 954 MiB (25.0 %), 0 MB/s"
    assert end_line(work, at(40, 1000 * MB)) == (
        "warm: 954 MiB of 954 MiB (100.0 %), 25 MB/s, ended after 40 s"
    )
    resident = at(0.002, 1000 * MB, read=0)
    assert end_line(work, resident) == "warm: 954 MiB of 954 MiB (100.0 %), ended after 0.002 s"


def test_a_share_of_ones_own_is_called_so() -> None:
    work = Work(files=8, local_rank=0, local_size=4, own_share=True)
    assert begin_line(work, at(0, 0)) == "warm: 954 MiB, share of local rank 0 of 4"
    alone = Work(files=1, local_rank=0, local_size=1, own_share=False)
    assert begin_line(alone, at(0, 0)) == "warm: 954 MiB, 1 shard"


def test_growth_is_between_two_looks() -> None:
    growth = Growth()
    assert growth.text(100, 0) == ""
    assert growth.text(102, 30 * MB) == ", +15 MB/s"
    assert growth.text(104, 30 * MB) == ""
    assert growth.text(106, 10 * MB) == ", -10 MB/s"
    assert growth.text(108, None) == ""
    assert growth.text(110, 30 * MB) == ""


# ---- the result ----


def report(**changes: object) -> Report:
    zeros = {"int": 0, "float": 0.0, "str": "", "bool": False, "bool | None": None}
    fields = dataclasses.fields(Report)
    plain = {field.name: zeros.get(str(field.type), ()) for field in fields}
    plain |= {"done": True, "seconds": 2.0, "local_size": 1, "partition": "dynamic"}
    return Report(**{**plain, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        ({}, "warm: nothing to read: the shards are empty"),
        (
            {"planned_bytes": 64 * MIB, "resident_bytes": 64 * MIB},
            "warm: all 64.0 MiB were resident",
        ),
        (
            {"planned_bytes": 64 * MIB, "read_bytes": 64 * MIB, "node_read_bytes": 64 * MIB},
            "warm: 64.0 MiB in 2.0 s, 34 MB/s",
        ),
        (
            {"planned_bytes": 64 * MIB, "resident_bytes": 48 * MIB, "node_read_bytes": 16 * MIB},
            "warm: 16.0 MiB in 2.0 s, 8.4 MB/s; 48.0 MiB were resident",
        ),
        (
            {
                "planned_bytes": 64 * MIB,
                "resident_bytes": 48 * MIB,
                "node_read_bytes": 16 * MIB,
                "limited_by": "storage",
            },
            "warm: 16.0 MiB in 2.0 s, 8.4 MB/s: the storage's limit; 48.0 MiB were resident",
        ),
        (
            {"planned_bytes": 64 * MIB, "node_read_bytes": 64 * MIB, "limited_by": "threads"},
            "warm: 64.0 MiB in 2.0 s, 34 MB/s",
        ),
        (  # of four ranks, of which this one read a quarter
            {
                "planned_bytes": 64 * MIB,
                "read_bytes": 16 * MIB,
                "shared_bytes": 48 * MIB,
                "node_read_bytes": 64 * MIB,
                "local_size": 4,
            },
            "warm: 64.0 MiB in 2.0 s, 34 MB/s (4 local ranks)",
        ),
        (
            {
                "planned_bytes": 16 * MIB,
                "read_bytes": 16 * MIB,
                "node_read_bytes": 16 * MIB,
                "local_size": 4,
                "partition": "block",
            },
            "warm: 16.0 MiB in 2.0 s, 8.4 MB/s (share of local rank 0 of 4)",
        ),
        (
            {
                "planned_bytes": 64 * MIB,
                "read_bytes": 32 * MIB,
                "node_read_bytes": 99 * MIB,  # some of it twice
                "failed_bytes": MIB,
                "left_out_bytes": 31 * MIB,
            },
            "warm: 32.0 MiB in 2.0 s, 17 MB/s; 1.00 MiB could not be read; 31.0 MiB left out",
        ),
        (
            {"planned_bytes": 64 * MIB, "left_out_bytes": 64 * MIB, "cancelled": True},
            "warm: nothing in 2.0 s; 64.0 MiB left out",
        ),
    ],
)
def test_the_result_leads_with_what_matters(figures: dict[str, object], line: str) -> None:
    assert result_line(report(**figures)) == line


def test_who_says_why_it_is_incomplete() -> None:
    assert tells_why(report(local_size=4, left_out_bytes=1))
    assert not tells_why(report(local_rank=1, local_size=4, left_out_bytes=1))
    assert tells_why(report(local_rank=1, local_size=4, error_count=1, failed_bytes=1))
    assert tells_why(report(local_rank=1, local_size=4, left_out_bytes=1, partition="block"))


def test_what_others_could_not_read_is_a_reason() -> None:
    incomplete = report(planned_bytes=2 * MIB, failed_bytes=MIB)
    assert not incomplete.complete
    assert incomplete.incomplete_reason() == "1.00 MiB could not be read by others"


# ---- a share that is required ----


def residency(size: int, resident: int | None) -> FileResidency:
    return FileResidency(
        "/m/a", size, resident, "cachestat", "" if resident is not None else "not ours"
    )


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("100%", 1),
        ("99.5 %", Fraction(199, 200)),
        ("0.995", Fraction(199, 200)),
        ("0%", 0),
        ("1", 1),
    ],
)
def test_a_share_as_it_is_typed(text: str, share: Fraction) -> None:
    assert parse_share(text).share == share


@pytest.mark.parametrize(
    "text", ["", "100", "101%", "-1%", "all", "1e2%", "50 GiB", "0.5.5", "%", "\u0661%"]
)
def test_no_share(text: str) -> None:
    with pytest.raises(ValueError, match="a share from 0% to 100%") as raised:
        parse_share(text)
    assert repr(text) in str(raised.value)


def test_what_is_required_is_counted_exactly() -> None:
    size = 10**18
    for resident, text, ready in (
        (size, "100%", True),
        (size - 1, "100%", False),
        (size * 995 // 1000, "99.5%", True),
        (size * 995 // 1000 - 1, "99.5%", False),
        (0, "0%", True),
    ):
        why = why_not_ready([residency(size, resident)], parse_share(text))
        assert (why is None) == ready
    assert why_not_ready([residency(0, 0)], parse_share("100%")) is None
    why = why_not_ready([residency(MIB, 0), residency(MIB, None)], parse_share("50%"))
    assert why == (
        "0.0 % of 2.00 MiB is resident, required is 50%; of 1 shard it is not known: not ours"
    )


# ---- names ----


def test_the_common_folder_is_told_once() -> None:
    assert apart(["/m/a", "/m/b"]) == ("/m", ["a", "b"])
    assert apart(["/m/x/a", "/m/y/b"]) == ("/m", ["x/a", "y/b"])
    assert apart(["/m/a", "/n/b"]) == ("", ["/m/a", "/n/b"])
    assert apart(["/m/a", "m/b"]) == ("", ["/m/a", "m/b"])
    assert apart(["a", "b"]) == ("", ["a", "b"])
    assert apart(["/m//a"]) == ("/m/", ["a"])
    assert apart(["/a"]) == ("", ["/a"])


def test_shards_that_have_no_folder_in_common() -> None:
    assert place(["/m/a", "/n/b", "/n/c"]) == "3 shards in 2 folders"
    assert place(["/m/a", "/m/b"]) == "2 shards in /m"
    assert place(["/a", "/b"]) == "2 shards"


def test_a_name_without_a_folder_among_others_that_have_one() -> None:
    long = "/".join(["a-long-name-of-a-folder"] * 4)
    rows = [shard_row(path, ("1",)) for path in (f"{long}/x", "y", "/z")]
    lines = table_of(("shard", "size"), rows).splitlines()[2:]
    assert [line.split()[0] for line in lines] == [f"{long}/", "x", "./", "y", "/", "z"]


@pytest.mark.parametrize(
    ("names", "width", "expected"),
    [
        (["a-1", "a-2"], 3, ["a-1", "a-2"]),
        (
            [
                "a-very-long-model-00001-of-00002.safetensors",
                "a-very-long-model-00002-of-00002.safetensors",
            ],
            36,
            ["a-ver…del-00001-of-00002.safetensors", "a-ver…del-00002-of-00002.safetensors"],
        ),
        (["one-very-long-name.safetensors"], 15, ["one-ver…tensors"]),
        (
            ["1-of-2.some.very.long.ending", "2-of-2.some.very.long.ending"],
            16,
            ["1-of-2.s….ending", "2-of-2.s….ending"],
        ),
        (["abcdefgh", "hgfedcba"], 4, ["abcdefgh", "hgfedcba"]),  # nothing in common
    ],
)
def test_names_are_cut_in_what_they_have_in_common(
    names: list[str], width: int, expected: list[str]
) -> None:
    assert shortened(names, width, "…") == expected


@given(
    st.lists(st.text("ab0-ü漢", max_size=12), unique=True),
    st.text("xy1漢", max_size=40),
    st.text("z.2ü", max_size=40),
    st.integers(1, 60),
)
def test_names_that_differ_stay_different(
    middles: list[str], head: str, tail: str, width: int
) -> None:
    names = [head + middle + tail for middle in middles]
    cut = shortened(names, width, "…")
    assert len(set(cut)) == len(names)
    for name, short in zip(names, cut, strict=True):
        assert short == name or cells_of(short) < cells_of(name)


@pytest.mark.parametrize(
    ("read_bytes", "shards", "missing", "line"),
    [
        (2048, 2, 3, "2 shards more: 2.00 KiB read; 3 missing"),
        (1024, 1, 0, "1 shard more: 1.00 KiB read, 1.00 KiB were resident"),
        (0, 1, 0, "1 shard more: 2.00 KiB were resident"),
    ],
)
def test_a_round_of_a_stay(read_bytes: int, shards: int, missing: int, line: str) -> None:
    of_a_round = report(planned_bytes=2048, node_read_bytes=read_bytes)
    assert round_line(of_a_round, shards, missing) == line


@pytest.mark.parametrize(
    ("names", "whose"), [(["b"], "b.safetensors"), (["b", "c"], "b.safetensors and 1 more")]
)
def test_the_shards_of_pages_that_cannot_be_used(names: list[str], whose: str) -> None:
    files = [
        FileResidency(f"/m/{name}.safetensors", 8192, 4096, "cachestat", "", 4096 * (name in names))
        for name in "abc"
    ]
    said = shards_shown(files, each=False)[-1]
    size = format_bytes(4096 * len(names))
    assert said == f"not usable: {size} more are being read, or could not be read: {whose}"
