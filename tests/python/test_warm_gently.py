"""--rate-limit and --nice: what is read at all, by bytes and not by a clock, and which priority the
threads have.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MIB,
    check_sum,
    clean_environment,
    eventually,
    finish,
    has_done,
    make_cold,
    resident_bytes,
    run_python,
    start_python,
    write_file,
)

from shardahead import Options, prefetch_files
from shardahead.arguments import parse_rate

BLOCK_BYTES = MIB
SIZE_BYTES = 8 * MIB
# A block in twelve days: what is read at all is the burst, which is one block.
SLOWEST: dict[str, Any] = {"options": Options(rate_limit=1, block_size=BLOCK_BYTES, threads=4)}
WAIT_SECONDS = 0.5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = write_file(tmp_path / "a.safetensors", SIZE_BYTES)
    make_cold(path)
    return path


def start_warm(*words: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "shardahead", "warm", "--json", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean_environment(), **options.pop("env", {})},
        **options,
    )


# ---- the rate ----


@pytest.mark.parametrize("partition", ["dynamic", "block"])
def test_no_more_is_read_than_a_burst(file: Path, partition: Any) -> None:
    with prefetch_files(file, partition=partition, **SLOWEST) as handle:
        eventually(lambda: has_done(handle, BLOCK_BYTES), "nothing is read")
        with pytest.raises(TimeoutError):
            handle.wait(WAIT_SECONDS)
        report = handle.report()
        assert report.read_bytes == BLOCK_BYTES
        assert report.rate_limit_bytes_per_s == 1
    # Cancelled, it ends although its workers would have waited for days.
    handle.wait(30)
    check_sum(handle.report())
    assert handle.report().left_out_bytes == SIZE_BYTES - BLOCK_BYTES


@pytest.mark.parametrize("strategy", ["auto", "pread"])
def test_what_the_kernel_reads_ahead_of_a_block_was_not_resident(
    tmp_path: Path, make_mount: Any, strategy: Any
) -> None:
    # With a limit there is time for it before the next block is taken.
    write_file(tmp_path / "source" / "a.safetensors", 2 * SIZE_BYTES)
    readahead_kib = 4096 if os.geteuid() == 0 else 128
    mount = make_mount(tmp_path / "source", readahead_kib=readahead_kib)
    options = Options(rate_limit="40MB", block_size=BLOCK_BYTES, threads=2, strategy=strategy)
    with prefetch_files(mount.mountpoint / "a.safetensors", options=options) as handle:
        handle.wait(60)
    report = handle.report()
    assert (report.resident_bytes, report.read_bytes) == (0, 2 * SIZE_BYTES)


def test_ranks_with_fixed_shares_have_a_part_of_it_each(file: Path) -> None:
    options = Options(rate_limit="10MB", partition="block")
    with prefetch_files(file, local_rank=1, local_size=4, options=options) as handle:
        assert handle.report().rate_limit_bytes_per_s == 2_500_000


def test_without_a_limit_all_is_read(file: Path) -> None:
    with prefetch_files(file, block_size=BLOCK_BYTES) as handle:
        handle.wait()
        assert handle.report().read_bytes == SIZE_BYTES
        assert handle.report().rate_limit_bytes_per_s == 0


def test_what_is_resident_costs_nothing(file: Path) -> None:
    prefetch_files(file).wait()
    with prefetch_files(file, **SLOWEST) as handle:
        handle.wait(30)
        assert handle.report().resident_bytes == SIZE_BYTES


ON_THE_BOARD = """
import sys
from shardahead import Options, prefetch_files
options = Options(rate_limit=1, block_size=1 << 20)
with prefetch_files(sys.argv[1], options=options) as handle:
    print("began", flush=True)
    sys.stdin.read()
    print(handle.report().read_bytes)
"""


def test_processes_on_a_board_have_one_limit_between_them(file: Path) -> None:
    both = [start_python(ON_THE_BOARD, str(file), stdin=subprocess.PIPE) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
    eventually(lambda: resident_bytes(file) >= BLOCK_BYTES, "nothing is read")
    with pytest.raises(subprocess.TimeoutExpired):
        both[0].wait(WAIT_SECONDS)
    assert sum(int(finish(process).stdout) for process in both) == BLOCK_BYTES


def test_one_without_a_limit_is_not_held_up_by_one_that_has_it(file: Path) -> None:
    with prefetch_files(file, **SLOWEST) as slow:
        eventually(lambda: has_done(slow, BLOCK_BYTES), "nothing is read")
        with prefetch_files(file, block_size=BLOCK_BYTES) as fast:
            fast.wait(30)
            assert fast.report().complete
        slow.wait(30)
        assert slow.report().complete
        assert slow.report().read_bytes == BLOCK_BYTES


CONSUMER = """
import json, sys
from shardahead import Options, safetensors_weights_iterator
options = Options(rate_limit=1, block_size=4096, threads=2)
read = 0
for name, tensor in safetensors_weights_iterator(sys.argv[1], options=options):
    read += tensor.nbytes
print(json.dumps(read))
"""


def test_a_load_is_not_held_up(tmp_path: Path) -> None:
    """At this rate its prefetch would take days; it waits for blocks that do not move, and then
    reads.
    """
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(MIB, dtype=torch.uint8)}, path)
    make_cold(path)
    assert run_python(CONSUMER, str(path)) == MIB


def test_the_command_and_the_variable(file: Path) -> None:
    for words, variables, expected in (
        (["--rate-limit", "1GB/s"], {}, 10**9),
        ([], {"SHARDAHEAD_RATE_LIMIT": "1GB"}, 10**9),
        (["--rate-limit", "0"], {"SHARDAHEAD_RATE_LIMIT": "1GB"}, 0),
    ):
        done = finish(start_warm(file, *words, env=variables))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rate_limit_bytes_per_s"] == expected


def test_a_rate_without_its_unit_is_doubted(file: Path) -> None:
    finish(start_warm(file, "--quiet"))
    said = "--rate-limit 200 is 200 bytes per second; for megabytes type 200MB"
    for words, doubted in ((("200",), True), (("200MB",), False), (("10000",), False)):
        done = finish(start_warm(file, "--quiet", "--rate-limit", *words))
        assert done.returncode == 0
        assert (said in done.stderr) == doubted
        assert doubted or not done.stderr


def test_a_slow_command_ends_when_it_is_told(file: Path) -> None:
    process = start_warm(file, "--rate-limit", 1, "--block-size", BLOCK_BYTES)
    eventually(lambda: resident_bytes(file) >= BLOCK_BYTES, "nothing is read")
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.returncode == 128 + signal.SIGTERM
    assert json.loads(done.stdout)["read_bytes"] == BLOCK_BYTES


def test_rates_as_people_write_them() -> None:
    assert parse_rate("200MB") == parse_rate("200MB/s") == parse_rate(" 200 MB / S ") == 2 * 10**8
    assert parse_rate("1MiB/s") == MIB
    assert parse_rate("7") == 7
    for wrong in ("", "fast", "1/s/s", "1 MB/h", "-1"):
        with pytest.raises(ValueError, match="not a number of bytes per second"):
            parse_rate(wrong)


# ---- the priority ----

NICE = """
import os, sys
from pathlib import Path
import shardahead.prefetch.handle as module
from shardahead import _core

real = module.PrefetchHandle.wait
def wait(self, timeout=None):
    names = {}
    for thread in os.listdir("/proc/self/task"):
        stat = Path(f"/proc/self/task/{thread}/stat").read_text()
        name, _, rest = stat[stat.index("(") + 1:].rpartition(")")
        names[name] = int(rest.split()[16])
    print(names, file=sys.stderr)
    return real(self, timeout)
module.PrefetchHandle.wait = wait
from shardahead.command.cli import main
sys.exit(main(sys.argv[1:]))
"""


def nice_of_workers(said: str) -> set[int]:
    names: dict[str, int] = {}
    for line in said.splitlines():
        if line.startswith("{"):
            names |= eval(line)
    return {nice for name, nice in names.items() if name.startswith("shardahead-")}


def test_nice_reaches_the_workers(file: Path) -> None:
    """They wait for a rate that never comes, so that they are there to be looked at."""
    for words, expected in (([], os.getpriority(os.PRIO_PROCESS, 0)), (["--nice"], 19)):
        process = start_python(NICE, "warm", "--json", "--rate-limit", "1", *words, str(file))
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("{"))
        process.send_signal(signal.SIGTERM)
        done = finish(process)
        assert nice_of_workers(line) == {expected}
        priority = json.loads(done.stdout)["priority"]
        assert priority == ({"nice": 19, "io_class": "idle"} if words else None)


def test_without_the_call_the_rest_is_done_all_the_same(file: Path) -> None:
    script = (
        "import sys\n"
        "from shardahead import _core\n"
        "_core.lower_io_priority = lambda: 1\n"
        "from shardahead.command.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = finish(start_python(script, "warm", "--nice", str(file)))
    assert done.returncode == 0
    assert "--nice: the priority of reads stays as it is: Operation not permitted" in done.stderr
