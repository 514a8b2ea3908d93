"""The options of the command, checked. Pure: reads no files and starts nothing."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path

from cases import PRESETS, Case
from job import METHODS, OF_ANOTHER_INTERPRETER, OF_PARTS, VARIABLES_OF, WRONG

#: Which environment below --environments holds the package of a method.
ENVIRONMENT_OF = {
    "sglang": "sglang",
    "sglang-plugin": "sglang",
    "vllm": "vllm",
    "vllm-plugin": "vllm",
    "fastsafetensors": "peers",
    "runai": "peers",
    "runai-buffered": "peers",
    "runai-distributed": "peers",
}


@dataclass(frozen=True)
class Options:
    """The command's options. `methods` are complete: variants of shardahead are in them."""

    cases: tuple[Case, ...]
    methods: tuple[str, ...]
    rounds: int
    pythons: dict[str, str]
    folder: Path | None
    link_mb_per_s: float | None
    time_limit_s: float
    verify: bool
    scratch: Path | None
    json: str | None
    picture: Path | None
    repeated: tuple[str, ...]

    def command(self, case: Case) -> str:
        """What measures this case again."""
        chosen = ["--case", case.name] if case.name in PRESETS else []
        return f'make compare COMPARE="{shlex.join([*chosen, *self.repeated])}"'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Cold loads of one checkpoint by several methods.")
    add = parser.add_argument
    add("--case", action="append", choices=[*PRESETS, "all"], help="a preset, may be repeated")
    add("--methods", help=f"comma-separated, of {','.join(METHODS)}; default: all")
    add("--shardahead-option", action="append", default=[], metavar="NAME=VALUE[,...]")
    add("--rounds", type=int, default=3, help="interleaved")
    add("--ranks", type=int)
    add("--shards", type=int)
    add("--size-mib", type=int, help="per shard")
    add("--rate-mb-per-s", type=float)
    add("--round-trip-ms", type=float)
    add("--seek-ms", type=float)
    add("--max-background", type=int)
    add("--congestion-threshold", type=int)
    add("--readahead-kib", type=int)
    add("--no-keep-cache", dest="keep_cache", action="store_false", default=None)
    add("--direct-io", action="store_true", default=None)
    add("--slices", action="store_true", default=None, help="each rank copies only its slices")
    add("--job-ranks", type=int, help="slices are those of the first --ranks of so many")
    add("--experts", type=int, help="only the tensors of the experts below this number")
    add("--work-s-per-gib", type=float, help="sleep after each tensor, for its bytes")
    add("--kill-rank", type=int, help="this rank kills itself during the load")
    add("--kill-after", type=float, help="after this share of its bytes")
    add("--memory-mib", type=int, help="in a memory cgroup with this limit, for all ranks")
    add("--hog-mib", type=int, help="beside a process that takes and gives back this much of it")
    add("--window-mib", type=int, help="of Shardahead: how far it may be ahead of the slowest rank")
    add("--folder", type=Path, help="load this checkpoint, without the slow filesystem")
    add("--link-mb-per-s", type=float, help="with --folder: the rate for the ratio")
    add("--time-limit-s", type=float, default=600.0, help="of one load")
    add("--verify", action="store_true", help="one more load per method, checked and not timed")
    add("--python", action="append", default=[], metavar="METHOD=INTERPRETER")
    add("--environments", type=Path, help="what make-environments.sh made")
    add("--scratch", type=Path, help="for checkpoints and mounts (default: a temporary folder)")
    add("--json", help="write everything here; - is standard output")
    add("--picture", type=Path)
    return parser


#: Options that change where things are and not what is measured.
_NOT_REPEATED = ("--case", "--json", "--picture", "--python", "--environments", "--scratch")


def parse(arguments: list[str]) -> Options:
    """The options; ends the process with status 2 where they make no sense."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        cases = _cases(given)
        pythons = _pythons(given)
        methods = _methods(given, pythons, cases)
    except ValueError as error:
        parser.error(str(error))
    return Options(
        cases=cases,
        methods=methods,
        rounds=given.rounds,
        pythons=pythons,
        folder=given.folder,
        link_mb_per_s=given.link_mb_per_s,
        time_limit_s=given.time_limit_s,
        verify=given.verify,
        scratch=given.scratch,
        json=given.json,
        picture=given.picture,
        repeated=tuple(_repeated(arguments)),
    )


def _cases(given: argparse.Namespace) -> tuple[Case, ...]:
    names = list(PRESETS) if "all" in (given.case or []) else given.case or []
    overrides = {
        field.name: getattr(given, field.name)
        for field in fields(Case)
        if getattr(given, field.name, None) is not None
    }
    cases = tuple(replace(PRESETS[name], **overrides) for name in names)
    cases = cases or (Case(name="folder" if given.folder else "options", **overrides),)
    for case in cases:
        if min(case.ranks, case.shards, case.size_mib, given.rounds) < 1:
            raise ValueError("ranks, shards, size and rounds are at least 1")
        if case.kill_rank is not None and not 0 <= case.kill_rank < case.ranks > 1:
            raise ValueError("--kill-rank names one of several ranks")
        if case.job_ranks is not None and not case.slices:
            raise ValueError("--job-ranks goes with --slices")
        if case.job_ranks is not None and case.job_ranks < case.ranks:
            raise ValueError("--job-ranks is at least --ranks")
        if case.experts is not None and case.experts < 1:
            raise ValueError("--experts is at least 1")
        if case.memory_mib is not None and case.memory_mib < 1:
            raise ValueError("--memory-mib is at least 1")
        if case.hog_mib is not None and case.hog_mib < 1:
            raise ValueError("--hog-mib is at least 1")
        if case.window_mib is not None and case.window_mib < 1:
            raise ValueError("--window-mib is at least 1")
        if case.resident and given.folder:
            raise ValueError("the case resident makes its own files: not with --folder")
    return cases


def _methods(
    given: argparse.Namespace, pythons: dict[str, str], cases: tuple[Case, ...]
) -> tuple[str, ...]:
    unnamed = [name for name in OF_ANOTHER_INTERPRETER if name not in pythons]
    alone = [case.name for case in cases if (case.job_ranks or 0) <= case.ranks]
    whole = all(not case.slices for case in cases)
    left_out = (*unnamed, *(WRONG if alone else ()), *(OF_PARTS if whole else ()))
    names = [name for name in METHODS if name not in left_out]
    if given.methods:
        names = given.methods.split(",")
    variants = [f"shardahead {','.join(shardahead_options(o))}" for o in given.shardahead_option]
    for name in names:
        if name not in METHODS:
            raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
        if name in unnamed:
            raise ValueError(f"{name} takes --python {name}=INTERPRETER")
        if name in WRONG and alone:
            raise ValueError(f"{name}: the job of {alone[0]} has no other ranks (--job-ranks)")
    return tuple(dict.fromkeys([*names, *variants]))


def shardahead_options(text: str) -> list[str]:
    """NAME=VALUE,NAME=VALUE as a list, checked."""
    options = text.split(",")
    for option in options:
        name, equals, value = option.partition("=")
        if not (name.isidentifier() and equals and value):
            raise ValueError(f"--shardahead-option takes NAME=VALUE, not {option!r}")
    return options


def shardahead_variables(method: str, window_mib: int | None = None) -> dict[str, str]:
    """The environment variables of a method; those without Shardahead do not look at them."""
    window = {} if window_mib is None else {"SHARDAHEAD_WINDOW_BYTES": f"{window_mib}MiB"}
    kind, _, text = method.partition(" ")
    window |= VARIABLES_OF.get(kind, {})
    if kind != "shardahead" or not text:
        return window
    pairs = (option.partition("=") for option in shardahead_options(text))
    return window | {f"SHARDAHEAD_{name.upper()}": value for name, _, value in pairs}


def _pythons(given: argparse.Namespace) -> dict[str, str]:
    found = {}
    if given.environments is not None:
        for method, environment in ENVIRONMENT_OF.items():
            python = given.environments / environment / "bin" / "python"
            if python.exists():
                found[method] = str(python.absolute())
    for text in given.python:
        method, equals, python = text.partition("=")
        if method not in METHODS or not equals:
            raise ValueError(f"--python takes METHOD=INTERPRETER, not {text!r}")
        found[method] = python
    return found


def _repeated(arguments: list[str]) -> list[str]:
    """The arguments that belong into a command that measures the same again."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if skip:
            skip = False
        elif name in _NOT_REPEATED:
            skip = not equals
        else:
            kept.append(argument)
    return kept
