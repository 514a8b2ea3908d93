"""The test bed itself: cluster.py starts it as the first process of network, mount and process
namespaces of its own. With it ends all that is in them: processes, mounts, devices, files.

    cluster_bed.py FOLDER OPTION...

Two threads: one waits for standard input to end, which is when whoever started this is gone or
wants no more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("compare", "demo", "slowfs"))]

from checkpoint import write_checkpoint  # noqa: E402
from cluster_figures import (  # noqa: E402
    Run,
    Setting,
    own_failures,
    problems,
    table,
    wrong_bytes,
)
from cluster_methods import METHODS, NAME, OWN  # noqa: E402
from cluster_network import Network  # noqa: E402
from cluster_options import parse_options, setting_of  # noqa: E402
from cluster_run import Bed  # noqa: E402
from machine import describe_machine  # noqa: E402

MIB = 2**20


def end_with_standard_input() -> None:
    def watch() -> None:
        while os.read(0, 4096):  # sys.stdin is locked while it waits, also when Python ends
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def lay_out(folder: Path, options: argparse.Namespace) -> None:
    """The filesystem in memory in which all lies, and the checkpoint."""
    size = (4 * options.nodes + 2) * (options.size_mib + 64)
    for point, limit in ((folder, f"{size}m"), (Path("/dev/shm"), "50%")):
        # The second one: what processes of a node share there ends with this.
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={limit}", "tmpfs", str(point)], check=True
        )
    (folder / "sys").mkdir()
    divisor = 1 if options.size_mib >= 512 else 8
    model = folder / "source" / NAME
    write_checkpoint(model, options.size_mib * MIB, options.shards, divisor=divisor)


def measure(
    options: argparse.Namespace, folder: Path, names: list[str]
) -> tuple[Setting, list[Run]]:
    """Round after round, in each of which every method comes once, another one first each time."""
    runs: list[Run] = []
    network = Network(options.nodes, options.node_link_mb_per_s, folder / "sys")
    with network.up():
        bed = Bed(options, folder, network)
        setting = setting_of(options, bed.size_bytes)
        say(setting.title)
        for round_number in range(options.rounds):
            turn = round_number % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                runs.append(bed.run(METHODS[name]))
                say(told(runs[-1], setting))
    return setting, runs


def told(run: Run, setting: Setting) -> str:
    if run.seconds is None:
        return f"{run.method}: {run.problem}"
    served = run.served_bytes / setting.size_bytes
    return f"{run.method}: {run.seconds:.2f} s, storage served {served:.3f} times {run.wrong}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    end_with_standard_input()
    folder = Path(sys.argv[1])
    options = parse_options(sys.argv[2:])
    lay_out(folder, options)
    wanted = options.methods.split(",")
    left_out = {name: reason for name in wanted if (reason := METHODS[name].missing())}
    setting, runs = measure(options, folder, [name for name in wanted if name not in left_out])
    print(f"{setting.title}; {setting.rounds} of each, medians (least-most)\n")
    print(table(runs, setting, left_out))
    if options.json is not None:
        document = {
            "machine": describe_machine(),
            "setting": asdict(setting),
            "limit_seconds": setting.limit_seconds,
            "left_out": left_out,
            "runs": [asdict(run) for run in runs],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    for line in problems(runs):
        say(line)
    failures = wrong_bytes(runs) + own_failures(runs, OWN)
    for line in failures:
        say(f"error: {line}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
