"""The figures of `warm --metrics-file`: their text, as its rules say and as the library of
Prometheus reads it, and a file that is whole at every moment.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, eventually

from shardahead.command.metrics_file import (
    Metric,
    MetricsWriter,
    metrics_text,
    name_for_rank,
    write_whole,
)
from shardahead.command.staying import StayFigures
from shardahead.command.warm_metrics import warm_metrics

VALUE = r"[+-]?(?:[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|Inf|NaN)"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)\{{((?:{LABEL})(?:,{LABEL})*)?\}} ({VALUE})")


def parsed(text: str) -> dict[str, tuple[str, str, str, float]]:
    """By name: kind, help, labels as written, value. Holds the text to the rules of the format."""
    assert text.endswith("\n")
    lines = text.removesuffix("\n").split("\n")
    found = {}
    for described, typed, sample in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        match = SAMPLE.fullmatch(sample)
        assert match, sample
        name, labels, value = match.groups()
        words = described.split(" ", 3)
        assert words[:3] == ["#", "HELP", name]
        kind = typed.removeprefix(f"# TYPE {name} ")
        assert kind in ("gauge", "counter")
        assert name.endswith("_total") == (kind == "counter")
        assert name not in found
        found[name] = (kind, words[3], labels, float(value))
    return found


def all_metrics() -> list[Metric]:
    figures = StayFigures(shards=3, size_bytes=2**60 + 1, resident_bytes=5, backed_off=True)
    return warm_metrics(
        None, figures, began=1.5, running=True, staying=False, complete=None, follow=True, keep=True
    )


def test_every_metric_is_well_formed_and_has_a_unit_in_its_name() -> None:
    found = parsed(metrics_text(all_metrics(), {"path": "/m", "local_rank": "0"}))
    assert all(name.startswith("shardahead_") for name in found)
    assert found["shardahead_warm_size_bytes"][3] == float(2**60 + 1)
    assert found["shardahead_warm_running"][3] == 1
    assert found["shardahead_warm_complete"][3] == 0
    assert found["shardahead_keep_resident_bytes"][3] == 5
    assert 'version="' in found["shardahead_info"][2]


def test_large_counts_lose_no_byte() -> None:
    assert f"}} {2**60 + 1}\n" in metrics_text([Metric("a", "gauge", "b", 2**60 + 1)], {"c": "d"})


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ('/m/a"b', r"/m/a\"b"),
        ("/m/a\\b", r"/m/a\\b"),
        ("/m/a\nb", r"/m/a\\nb"),
        ("/m/ä", "/m/ä"),
        (os.fsdecode(b"/m/\xff"), r"/m/\\xff"),
    ],
)
def test_names_of_paths_are_escaped(path: str, label: str) -> None:
    text = metrics_text(all_metrics(), {"path": path})
    assert f'{{path="{label}"}} ' in text
    parsed(text)
    text.encode()


def test_the_library_of_prometheus_reads_it() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    metrics = all_metrics()
    text = metrics_text(metrics, {"path": '/m "x"\\', "local_rank": "0"})
    samples = [s for family in parser.text_string_to_metric_families(text) for s in family.samples]
    assert [s.name for s in samples] == [m.name for m in metrics]
    assert [s.value for s in samples] == [m.value for m in metrics]
    assert all(s.labels["path"] == '/m "x"\\' for s in samples)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="a-b"):
        metrics_text([Metric("a-b", "gauge", "", 1)], {"c": "d"})


def test_ranks_of_a_node_have_files_of_their_own() -> None:
    assert name_for_rank("/x/warm.prom", 0, 1) == "/x/warm.prom"
    assert name_for_rank("/x/warm.prom", 3, 4) == "/x/warm.3.prom"


# ---- the file ----


def test_the_file_is_whole_whenever_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "warm.prom"
    texts = [f"{letter * 100_000}\n" for letter in "ab"]
    write_whole(str(path), texts[0])
    ended = threading.Event()

    def write() -> None:
        for number in range(300):
            write_whole(str(path), texts[number % 2])
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not ended.is_set():
        assert path.read_text() in texts
    thread.join()
    assert os.listdir(tmp_path) == ["warm.prom"]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_whole(str(tmp_path / "folder"), "text")
    assert os.listdir(tmp_path) == ["folder"]
    with pytest.raises(FileNotFoundError):
        write_whole(str(tmp_path / "missing" / "warm.prom"), "text")


def test_a_writer_writes_at_the_start_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "warm.prom"
    values = [1.0]
    writer = MetricsWriter(
        str(path), {"path": "/m"}, lambda: [Metric("a", "gauge", "b", values[0])]
    )
    writer.start()
    assert parsed(path.read_text())["a"][3] == 1
    values[0] = 2
    writer.end()
    assert parsed(path.read_text())["a"][3] == 2


def test_a_writer_whose_folder_goes_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    writer = MetricsWriter(
        str(folder / "warm.prom"), {"path": "/m"}, lambda: [Metric("a", "gauge", "b", 1)]
    )
    writer.start()
    (folder / "warm.prom").unlink()
    folder.rmdir()
    writer._write_or_say()
    writer.end()
    assert capsys.readouterr().err.count("--metrics-file") == 1


def test_the_end_is_written_though_it_comes_while_the_thread_writes(tmp_path: Path) -> None:
    """What is collected at that moment is of before the end."""
    path = tmp_path / "warm.prom"
    ended = [0.0]
    collecting, goes_on = threading.Event(), threading.Event()

    def collect() -> list[Metric]:
        found = ended[0]
        if threading.current_thread() is not threading.main_thread():
            collecting.set()
            assert goes_on.wait(HANG_SECONDS)
        return [Metric("a", "gauge", "b", found)]

    writer = MetricsWriter(str(path), {"path": "/m"}, collect)
    writer.start()
    writer.write_soon()
    assert collecting.wait(HANG_SECONDS)
    ended[0] = 1
    threading.Timer(0.1, goes_on.set).start()
    writer.end()
    eventually(lambda: parsed(path.read_text())["a"][3] == 1, "the end is not written")
