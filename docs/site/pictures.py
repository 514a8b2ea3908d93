"""Draws docs/pictures/figures.svg from the first table of docs/figures.md: they cannot differ.

`python docs/site/pictures.py` writes it; with --check it says whether it is as it would be written.
The other picture, how-it-works.svg, is drawn by hand. Needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
PAGE, PICTURE = DOCS / "figures.md", DOCS / "pictures" / "figures.svg"
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)
CELL = re.compile(r"\**(\d+\.\d+)\**(?: \((\d+\.\d+)-(\d+\.\d+)\))?")

WIDTH, LABEL, BAR, GAP, TOP = 880, 190, 16, 22, 58
MOST = 7.0  # times the link's time at the right end


def read_table() -> tuple[list[str], list[tuple[str, list[re.Match[str] | None]]]]:
    """The methods, and for each load its cells."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    end = next(i for i, row in enumerate(table[2:], 2) if set(row[1]) == {"-"}) - 1
    rows = [(row[0], [CELL.match(cell) for cell in row[1:-1]]) for row in table[2:end]]
    return table[0][1:-1], rows


def at(times: float) -> float:
    return LABEL + (WIDTH - LABEL - 70) * times / MOST


def draw() -> str:
    methods, rows = read_table()
    lines: list[str] = []
    y, link = TOP, at(1)
    for load, cells in rows:
        begin = y - 2
        lines.append(f'<text class="sa-head" x="12" y="{y - 6}">{escape(load)}</text>')
        for method, cell in zip(methods, cells, strict=True):
            if cell is None:
                continue
            kind = "sa-here" if method == "Shardahead" else "sa-free"
            times = float(cell[1])
            middle = y + BAR - 4
            lines.append(
                f'<text class="sa-soft" x="{LABEL - 8}" y="{middle}" text-anchor="end">'
                f"{escape(method)}</text>"
                f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{at(times) - LABEL:.1f}" '
                f'height="{BAR}" rx="2"/>'
                f'<text x="{at(float(cell[3] or cell[1])) + 8:.1f}" y="{middle}">{cell[1]}</text>'
            )
            if cell[2]:
                least, most = at(float(cell[2])), at(float(cell[3]))
                lines.append(f'<path class="sa-flow" d="M{least:.1f} {y + BAR / 2} H{most:.1f}"/>')
            y += BAR + 4
        lines.append(
            f'<path class="sa-flow" stroke-dasharray="4 3" d="M{link:.1f} {begin} V{y - 2}"/>'
        )
        y += GAP
    height = y - GAP + 20
    own = (DOCS / "pictures" / "how-it-works.svg").read_text("utf-8")
    style = STYLE.search(own)
    assert style is not None
    return "\n".join(
        [
            '<svg class="sa-picture" xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            'font-family="system-ui, -apple-system, \'Segoe UI\', sans-serif" font-size="13">',
            "<title>Cold loads by 4 ranks, times the link's time</title>",
            "<desc>Drawn from the first table of figures.md; lines are least and most.</desc>",
            style[0],
            f'<text class="sa-soft" x="{link:.1f}" y="20" text-anchor="middle">'
            "1.00: the link (dashed); thin: least to most</text>",
            *lines,
            "</svg>",
            "",
        ]
    )


def main() -> int:
    drawn = draw()
    if sys.argv[1:] != ["--check"]:
        PICTURE.write_text(drawn, "utf-8")
        return 0
    if PICTURE.read_text("utf-8") == drawn:
        return 0
    print(f"{PICTURE} is not as figures.md says: python docs/site/pictures.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
