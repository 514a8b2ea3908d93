"""The formula of docs/faster.md: its tables follow from it, what was measured lies within it, and
the calculator in the page gives the same.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from conftest import MIB, REPOSITORY

GIB = 1024 * MIB
PAGE = (REPOSITORY / "docs" / "faster.md").read_text(encoding="utf-8")
SCRIPT = REPOSITORY / "docs" / "javascripts" / "calculator.js"
OVER = 1.1
#: (link's time, plain at least and at most, Shardahead at least and at most), seconds
Times = tuple[float, float, float, float, float]


def load_seconds(
    size_bytes: float,
    nodes: float,
    ranks: float,
    link: float,
    storage: float,
    round_trip: float,
    readahead: float,
    work: float,
) -> Times:
    """As the page states it. Rates in bytes per second, times in seconds, work in s/GiB."""
    rate = min(link, storage / nodes) if storage else link
    by_link = size_bytes / rate
    waiting = size_bytes / ((2 if ranks == 1 else 4) * readahead) * round_trip
    by_work = size_bytes / GIB * work
    best = max(by_link, by_work)
    plain = (max(by_link, waiting, by_work), OVER * (by_link + waiting + by_work))
    return by_link, *plain, best, OVER * best


def rows_below(heading: str) -> list[list[str]]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


CASES = rows_below("Without JavaScript")
MEASURED = rows_below("What was measured")


def arguments_of(row: list[str]) -> tuple[float, ...]:
    size, shape, link, storage, round_trip, readahead, work = row[:7]
    nodes, ranks = shape.split(" x ")
    return (
        float(size) * 1e9,
        float(nodes),
        float(ranks),
        float(link) * 1e6,
        float(storage) * 1e6,
        float(round_trip) / 1e3,
        float(readahead) * 1024,
        float(work),
    )


def shown(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def test_the_tables_are_found() -> None:
    assert len(CASES) > 5
    assert len(MEASURED) > 10


@pytest.mark.parametrize("row", CASES, ids=" ".join)
def test_a_case_follows_from_the_formula(row: list[str]) -> None:
    _, *plain, least, most = map(shown, load_seconds(*arguments_of(row)))
    assert row[7:] == [" to ".join(plain), f"{least} to {most}"]


@pytest.mark.parametrize("row", MEASURED, ids=" ".join)
def test_what_was_measured_lies_within_the_formula(row: list[str]) -> None:
    files, ranks, link, round_trip, readahead, work = row[:6]
    count, mib = map(int, re.findall(r"(\d+) x (\d+) MiB", files)[0])
    times = load_seconds(
        count * mib * MIB,
        1,
        float(ranks),
        float(link) * 1e6,
        0,
        float(round_trip) / 1e3,
        float(readahead.removesuffix(" KiB")) * 1024,
        float(work),
    )
    told = (row[6], "1.00 to 1.10")
    assert f"formula is {told[1]} in all rows" in " ".join(PAGE.split())
    for place, (told_range, figure) in enumerate(zip(told, row[7:], strict=True)):
        least, most = (seconds / times[0] for seconds in times[1 + 2 * place : 3 + 2 * place])
        assert told_range == f"{least:.2f} to {most:.2f}"
        assert round(least, 2) <= float(figure) <= round(most, 2)


def by_the_calculator(cases: list[tuple[float, ...]]) -> list[Any]:
    names = ["bytes", "nodes", "ranks", "link", "storage", "roundTrip", "readahead", "workPerGib"]
    given = [dict(zip(names, case, strict=True)) for case in cases]
    script = (
        "const {loadSeconds, described} = require(process.argv[1]);"
        "const cases = JSON.parse(process.argv[2]);"
        "const found = cases.map((c) => [loadSeconds(c), described(c, loadSeconds(c))]);"
        "console.log(JSON.stringify(found));"
    )
    done = subprocess.run(
        ["node", "-e", script, str(SCRIPT), json.dumps(given)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout)
    return found


def test_the_calculator_gives_the_same() -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    cases = [arguments_of(row) for row in CASES]
    for case, (found, text) in zip(cases, by_the_calculator(cases), strict=True):
        times = [found["link"], *found["plain"], *found["shardahead"]]
        assert times == pytest.approx(load_seconds(*case))
        assert "NaN" not in text
        _, nodes, ranks, link, *_ = case
        measured = nodes == 1 and ranks <= 4 and link <= 500e6
        assert len(text.splitlines()) == (4 if measured else 5)
        assert ("Not measured" in text) != measured
