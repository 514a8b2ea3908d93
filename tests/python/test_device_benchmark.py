"""benchmarks/device on the CPU: each way brings the bytes of the files. Starts no process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DEVICE = Path(__file__).resolve().parents[2] / "benchmarks" / "device"
sys.path[:0] = [str(DEVICE), str(DEVICE.parent / "compare"), str(DEVICE.parent / "demo")]

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import measure  # noqa: E402
import staging  # noqa: E402
from device_checkpoint import write_large, write_small  # noqa: E402
from device_options import parse  # noqa: E402
from device_process import LoadingProcess  # noqa: E402
from device_tables import make_load  # noqa: E402
from ways import CASES, CUDA_COPIES, way_named  # noqa: E402

CPU_WAYS = sorted(
    {
        way.name
        for case in CASES.values()
        for way in case.ways
        if way.copy not in (*CUDA_COPIES, "skip")
    }
)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadingProcess]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoint")
    files = write_large(folder / "large", 2, 4) + write_small(folder / "small", 1)
    process = LoadingProcess(torch.device("cpu"), 0, 1)
    assert process.take_files([str(file) for file in files]) == 9 * 2**20 + 2 * 4 * 8192
    yield process
    torch.set_num_threads(threads)


@pytest.mark.parametrize("way", CPU_WAYS)
def test_every_way_brings_the_bytes_of_the_files(
    process: LoadingProcess, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Buffers that most tensors do not fit, and that are taken again and again.
    monkeypatch.setattr(staging, "STAGING_BYTES", 2**20)
    process.prepare()
    figures = process.load(way)
    assert figures["ended"] > figures["started"]
    assert process.wrong_tensors() == 0


def test_a_load_that_brings_nothing_is_found_out(process: LoadingProcess) -> None:
    process.prepare()
    process.load("mmap:skip")
    assert process.wrong_tensors() == 2 * (32 + 4) + 16


def test_a_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "short"
    file.write_bytes(b"abc")
    ring = staging.Ring(torch.device("cpu"), 2)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        ring.put(torch.empty(4, dtype=torch.uint8), staging.FilePiece(descriptor, 0, 4))
        with pytest.raises(EOFError, match="ends at 3"):
            ring.finish()
    finally:
        ring.close()
        os.close(descriptor)


@pytest.mark.parametrize(
    "name",
    [
        *("", "mmap", "mmap:", "mmap:copy2", "mmap:none", "disk:copy", "mmap:staged04"),
        *("mmap:staged", "mmap:staged0", "mmap:staged65", "files:copy", "safe_open:copy"),
    ],
)
def test_what_is_no_way_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no way"):
        way_named(name)
    with pytest.raises(SystemExit):
        parse(["--ways", name])
    assert f"no way {name!r}" in capsys.readouterr().err


def test_the_rate_is_of_all_processes_from_the_first_start_to_the_last_end() -> None:
    counts = {"set_up_seconds": 0.1, "cpu_seconds": 1.0, "minor_faults": 10, "major_faults": 1}
    answers = [{"started": 0.0, "ended": 2.0, **counts}, {"started": 1.0, "ended": 4.0, **counts}]
    load = make_load(answers, 2 * 2**30)
    assert load.seconds == 4.0
    assert load.rate_gb_per_s == pytest.approx(2**30 / 1e9)
    assert (load.cpu_s_per_gib, load.minor_faults_per_gib, load.major_faults) == (0.5, 5.0, 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        measure.main([])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no CUDA device" in said.err
