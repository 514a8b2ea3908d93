"""`shardahead report` of files that are no reports of a load: each is named with what is wrong."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB
from hypothesis import given
from hypothesis import strategies as st
from report_support import changed, load_file

from shardahead.command import cli
from shardahead.command.load_files import LoadFileError, _checked, _FieldError, read_load_file
from shardahead.command.load_plot import ASCII
from shardahead.command.loads import group
from shardahead.command.report_command import as_dict, as_text
from shardahead.prefetch.series import Sample

REPOSITORY = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return load_file(tmp_path)


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "schema": lambda d: d.update(schema="shardahead/load/2"),
    "started": lambda d: d.update(started="yesterday"),
    "zone": lambda d: d.update(started="2026-01-01T00:00:00"),
    "seconds": lambda d: d.update(seconds=-1),
    "total_bytes": lambda d: d.update(total_bytes=1.5),
    "local_rank": lambda d: d["process"].update(local_rank=True),
    "process": lambda d: d.update(process=[]),
    "host": lambda d: d["node"].pop("host"),
    "files": lambda d: d.update(files=["/m/a"]),
    "size_bytes": lambda d: d["files"][0].update(size_bytes=2**70),
    "no list of files": lambda d: d.update(files=[]),
    "path": lambda d: d["files"][0].update(path=None),
    "read_bytes": lambda d: d["report"].update(read_bytes="many"),
    "complete": lambda d: d["report"].update(complete=None),
    "series": lambda d: d["series"].update(read_bytes=[]),
    "series.claimed_bytes": lambda d: d["series"].pop("claimed_bytes"),
    "goes back": lambda d: d["series"]["seconds"].reverse(),
    "no number": lambda d: d.update(seconds=float("nan")),
    "reason": lambda d: d.update(reason=[1]),
    "kernel": lambda d: d["node"].update(kernel={}),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_with_its_file(file: Path, what: str, capsys: Capture) -> None:
    def change(document: dict[str, Any]) -> None:
        series = document["series"]
        for name, column in series.items():  # at least two samples
            if isinstance(column, list):
                series[name] = [*column, (column[-1] + 1 if name == "seconds" else column[-1])]
        WRONG[what](document)

    wrong = changed(file, "wrong.json", change)
    assert cli.main(["report", str(file), str(wrong)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"'{wrong}' is no report of a load: " in said
    assert what in said or what == "zone"


def test_a_truncated_file_is_named_wherever_it_ends(file: Path) -> None:
    content = file.read_bytes()
    cut = file.with_name("cut.json")
    for length in [*range(0, len(content), max(1, len(content) // 200)), len(content) - 1]:
        cut.write_bytes(content[:length])
        with pytest.raises(LoadFileError, match=r"cut\.json' is no report of a load"):
            read_load_file(str(cut))
    cut.write_bytes(content)
    assert read_load_file(str(cut)).document["report"]["read_bytes"] == 3 * MIB


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff\xfe", b"[" * 10**6, b"1" * 10**5, b'{"schema": NaN}', b"null", b"\0" * 9],
)
def test_a_hostile_file_is_named(tmp_path: Path, content: bytes, capsys: Capture) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert cli.main(["report", str(tmp_path / "x.json")]) == 2
    assert "x.json' is no report of a load" in capsys.readouterr().err


def test_what_cannot_be_read_is_named(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["report", str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
    os.mkfifo(tmp_path / "fifo.json")
    assert cli.main(["report", str(tmp_path / "fifo.json")]) == 1
    assert "fifo.json" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["report", str(tmp_path / "empty")]) == 2
    assert "empty" in capsys.readouterr().err


def drawn_or_named(document: dict[str, Any]) -> str:
    """What is wrong with it; "" where it is taken, and can be drawn."""
    try:
        checked = _checked("f", document)
    except _FieldError as error:
        return str(error)
    for files in ([checked], [checked, checked]):
        assert as_text(group(files), 80, ASCII)
        json.dumps(as_dict(group(files)))
    return ""


@given(st.data())
def test_no_value_breaks_it(data: st.DataObject) -> None:
    """Any value in place of any field, or none, is either taken and drawn, or named."""
    document = copy.deepcopy(DOCUMENT)
    inside: Any = document
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(inside[key], dict | list) and inside[key]) or data.draw(st.booleans()):
            break
        inside = inside[key]
    if data.draw(st.booleans()):
        del inside[key]
    else:
        scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
        inside[key] = data.draw(scalars | st.lists(scalars) | st.dictionaries(st.text(), scalars))
    drawn_or_named(document)


def required_fields() -> list[tuple[str, str]]:
    """By the schema: the object, "" for the document, and the field."""
    schema = json.loads((REPOSITORY / "docs/schemas/load-1.json").read_bytes())
    found = [("", name) for name in schema["required"]]
    for name, part in schema["properties"].items():
        for each in [part, *part.get("anyOf", [])]:
            found += [(name, field) for field in each.get("required", [])]
    return found


@pytest.mark.parametrize(("part", "field"), required_fields())
def test_a_field_that_is_missing_is_named(part: str, field: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    assert drawn_or_named(document) == ""
    del (document[part] if part else document)[field]
    assert field in drawn_or_named(document)


@pytest.mark.parametrize("field", ["mode", "reason"])
def test_a_file_without_a_field_is_named_with_it(file: Path, field: str, capsys: Capture) -> None:
    wrong = changed(file, "wrong.json", lambda document: document.pop(field))
    assert cli.main(["report", str(wrong)]) == 2
    said = capsys.readouterr().err
    assert f"'{wrong}' is no report of a load: {field} is missing" in said
    assert said.count("\n") == 1


DOCUMENT: dict[str, Any] = {
    "schema": "shardahead/load/1",
    "entry": "prefetch_files",
    "mode": None,
    "ended": "done",
    "reason": None,
    "started": "2026-01-01T00:00:00+00:00",
    "seconds": 2.0,
    "total_bytes": 1000,
    "read_bytes": 1000,
    "consumed_bytes": 0,
    "process": {"pid": 1, "number": 1, "local_rank": 0, "local_size": 1, "topology_source": "x"},
    "node": {"host": "n", "boot_id": "b", "kernel": "6", "machine": "m", "cpus": 2},
    "versions": {"shardahead": "0", "python": "3"},
    "settings": {
        "threads": 4,
        "block_bytes": 4096,
        "block_size_given": False,
        "strategy": "auto",
        "partition": "dynamic",
        "window_bytes": None,
        "inflight_bytes": 0,
        "board_folder": "/dev/shm",
        "memory_budget_bytes": None,
        "rate_limit_bytes_per_s": 0,
        "report": "/r",
    },
    "report": {
        "planned_bytes": 1000,
        "lost_bytes": 0,
        "node_read_bytes": 1000,
        "refetched_bytes": 0,
        "dropped_bytes": 0,
        "strategy": "auto",
        "step_bytes": 4096,
        "step_source": "measured",
        "inflight_bytes": 0,
        "rate_limit_bytes_per_s": 0,
        "window_source": "none",
        "partition_reason": "",
        "keeps_pages": None,
        "keeps_pages_reason": "",
        "local_rank": 0,
        "local_size": 1,
        "topology_source": "x",
        "done": True,
        "cancelled": False,
        "error_count": 0,
        "errors": [],
        "bytes_per_second": 1000.0,
        "resident_bytes": 0,
        "read_bytes": 1000,
        "shared_bytes": 0,
        "failed_bytes": 0,
        "left_out_bytes": 0,
        "window_bytes": 0,
        "block_bytes": 4096,
        "threads": 1,
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "waited_seconds": 1.0,
        "strategy_used": "pread",
        "partition": "dynamic",
        "complete": True,
    },
    "files": [{"path": "/m/a", "size_bytes": 1000}],
    "series": {
        "interval_seconds": 0.02,
        "seconds": [0.0, 2.0],
        **{name: [0, 1000] for name in Sample._fields if name != "seconds"},
    },
}
