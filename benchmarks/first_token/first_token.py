"""From the start of a real server to its first token, on the slow filesystem.

vLLM, offline and as a server, and SGLang's server, on processors, by one and two tensor parallel
ranks: without Shardahead, with it, and with it switched off, in turns. Prints a table; --json adds
the figures of each start to a file. README.md says what it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY / "benchmarks" / "slowfs")]

from slowfs import SlowFs  # noqa: E402
from starts import CASES, VARIANTS, Case, run  # noqa: E402

Figures = dict[str, Any]
#: Of which figures of a start the table has the median: what it is called there, and how shown.
MIDDLE = {
    "load_seconds": ("weights", "{:.2f} s"),
    "weights_seconds": ("loaded after", "{:.1f} s"),
    "first_token_seconds": ("first token after", "{:.1f} s"),
    "served": ("served", "{:.3f}"),
    "ours": ("by Shardahead in", "{:.0f} processes"),
}


def main() -> int:
    signal.signal(signal.SIGTERM, leave)
    options = parsed(sys.argv[1:])
    cases = [case for case in CASES if not options.case or case.name in options.case]
    checkpoint = options.folder / "checkpoint"
    figures: list[Figures] = []
    if options.json and options.json.exists():
        figures = json.loads(options.json.read_text())
    if not options.show:
        for one in measured(options, cases, checkpoint):
            figures.append(one)
            print(described(one), file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1))
    print("\n".join(table(figures)))
    return 1 if differing(figures) else 0


def leave(number: int, _: Any) -> None:
    """A server has a session of its own, and would stay."""
    sys.exit(128 + number)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, default=REPOSITORY / "build" / "engines")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build" / "first-token")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=300.0, help="of the link, in MB/s")
    parser.add_argument("--round-trip", type=float, default=1.0, help="in ms")
    parser.add_argument("--json", type=Path, help="figures are added to this file")
    parser.add_argument("--show", action="store_true", help="measure nothing: the file's table")
    return parser.parse_args(arguments)


def measured(
    options: argparse.Namespace, cases: Sequence[Case], checkpoint: Path
) -> Iterator[Figures]:
    for number in range(options.rounds):
        for case in cases:
            python = options.environments / f"{case.engine}-serving" / "bin" / "python"
            if not python.exists():
                print(f"no {case.name}: {python} is not there", file=sys.stderr)
                continue
            make(checkpoint, python)
            # Each variant is first in some round.
            turn = number % len(VARIANTS)
            variants = [*VARIANTS][turn:] + [*VARIANTS][:turn]
            for variant in variants:
                try:
                    yield one_start(options, case, python, checkpoint, variant)
                except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
                    print(f"no {case.name}, {variant}: {error}", file=sys.stderr)


def make(checkpoint: Path, python: Path) -> None:
    if not (checkpoint / "prompts.json").exists() or not weights_of(checkpoint):
        subprocess.run([python, HERE / "make_checkpoint.py", checkpoint], check=True)


def weights_of(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.glob("*.safetensors"))


def one_start(
    options: argparse.Namespace, case: Case, python: Path, checkpoint: Path, variant: str
) -> Figures:
    size_bytes = 0
    for path in weights_of(checkpoint):  # the source is in memory, so the mount is the link
        size_bytes += len(path.read_bytes())
    log = options.folder / f"{case.name}-{variant.replace(' ', '-')}.log"
    link = {"rate_mb_per_s": options.rate, "round_trip_ms": options.round_trip}
    with (
        tempfile.TemporaryDirectory(prefix="first-token-") as mountpoint,
        SlowFs(checkpoint, Path(mountpoint), **link) as mount,
    ):
        mount.reset()
        load_average = os.getloadavg()[0]
        found = run(case, python, mount.mountpoint, variant, checkpoint / "prompts.json", log)
        served = mount.counters().bytes_served
    return {
        "case": case.name,
        "variant": variant,
        "bytes": size_bytes,
        "served": served / size_bytes,
        "load_average": load_average,
        "link_seconds": size_bytes / options.rate / 1e6,
        **asdict(found),
    }


def described(one: Figures) -> str:
    return (
        f"{one['case']}, {one['variant']}: weights {one['load_seconds']:.2f} s, loaded after "
        f"{one['weights_seconds']:.1f} s, first token after {one['first_token_seconds']:.1f} s"
    )


def differing(figures: Sequence[Figures]) -> list[str]:
    """The cases whose starts did not all give the same tokens."""
    given: dict[str, set[str]] = {}
    for one in figures:
        given.setdefault(one["case"], set()).add(json.dumps(one["tokens"]))
    return [case for case, tokens in given.items() if len(tokens) > 1]


def table(figures: Sequence[Figures]) -> Iterator[str]:
    """Medians, as a table of Markdown."""
    if not figures:
        yield "nothing was measured"
        return
    columns = ("", "Shardahead", "starts", *(heading for heading, _ in MIDDLE.values()), "tokens")
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    different = differing(figures)
    for case in dict.fromkeys(one["case"] for one in figures):
        for variant in VARIANTS:
            of = [one for one in figures if (one["case"], one["variant"]) == (case, variant)]
            if not of:
                continue
            told = "differ" if case in different else "identical"
            middle = [
                shown.format(statistics.median(one[name] for one in of))
                for name, (_, shown) in MIDDLE.items()
            ]
            yield f"| {case} | {variant} | {len(of)} | {' | '.join(middle)} | {told} |"
    loads = [one["load_average"] for one in figures]
    yield ""
    yield (
        f"{figures[0]['bytes'] / 1e6:.0f} MB, which the link carries in "
        f"{figures[0]['link_seconds']:.2f} s. weights: what the engine says that loading took. "
        f"Load average before the starts: {min(loads):.1f} to {max(loads):.1f}."
    )


if __name__ == "__main__":
    sys.exit(main())
