"""The comparison as a picture: a panel a case, a bar a method. Draws medians, and the range."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from records import CaseResult, MethodResult
from tables import time_cell

_COLUMNS = 2
_OURS, _OTHERS = "tab:orange", "tab:blue"


def draw(results: Sequence[CaseResult], path: Path) -> None:
    """Times the link's time where the link's rate is known, else seconds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = -(-len(results) // _COLUMNS)
    columns = min(_COLUMNS, len(results))
    most = max(len(result.methods) for result in results)
    size = (6.5 * columns, (1.2 + 0.32 * most) * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
    panels = [panel for line in grid for panel in line]
    for panel, result in zip(panels, results, strict=False):
        _panel(panel, result)
    for panel in panels[len(results) :]:
        panel.axis("off")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(panel: Any, result: CaseResult) -> None:
    name = "seconds" if result.link_seconds is None else "ratio"
    for place, method in enumerate(result.methods):
        values = method.values(name)
        if values:
            _bar(panel, place, method, values)
        else:
            panel.text(0, place, f" {time_cell(result, method)[:60]}", va="center", fontsize=8)
    panel.set_yticks(range(len(result.methods)), [method.method for method in result.methods])
    panel.invert_yaxis()
    panel.set_xlim(left=0)
    if name == "ratio":
        panel.axvline(1, color="0.4", linestyle="--")
    panel.set_xlabel("seconds" if name == "seconds" else "times the link's time")
    panel.set_title(f"{result.case.name}: {result.conditions}", fontsize=8)


def _bar(panel: Any, place: int, method: MethodResult, values: list[float]) -> None:
    middle = statistics.median(values)
    reach = [[middle - min(values)], [max(values) - middle]]
    color = _OURS if method.method.startswith("shardahead") else _OTHERS
    panel.barh(place, middle, xerr=reach, color=color, height=0.7, capsize=2)
    panel.text(max(values), place, f" {middle:.2f}", va="center", fontsize=8)
