"""Runs an engine's own tests in a rank, and says how each of them ended.

Runs under the interpreter of the engine's environment; pytest comes from a folder beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import Any
from unittest.mock import patch

_WORST_LAST = ("passed", "skipped", "failed")


def outcomes(
    deciding: ModuleType,
    *,
    pytest_folder: str,
    sources: str,
    files: Sequence[str],
    left_out: Sequence[str],
    everything: bool = False,
) -> dict[str, str]:
    """By the id of each test: "passed", "skipped" or "failed", which is also a file that does not
    import. `files`, and the ids of tests that are `left_out`, are relative to `sources`.

    `everything`: as if all files were on a network filesystem. `deciding` is the module of the
    plugin that asks that.
    """
    sys.path.append(pytest_folder)
    import pytest

    found: dict[str, str] = {}

    class Recorder:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            _note(found, report)

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                _note(found, report)

    os.chdir(sources)
    # Without their conftest.py, which is about servers; what they print is the rank's log.
    options = ["-s", "--noconftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    options += [f"--deselect={test}" for test in left_out]
    taken = patch.object(deciding, "is_prefetched_unasked", return_value=True)
    with taken if everything else nullcontext():
        pytest.main([*options, *files], plugins=[Recorder()])
    return found


def _note(found: dict[str, str], report: Any) -> None:
    """A test has several reports: set up, call, tear down, and its subtests."""
    worst = max(found.get(report.nodeid, "passed"), report.outcome, key=_WORST_LAST.index)
    found[report.nodeid] = worst
