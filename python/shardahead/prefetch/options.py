"""Options: what was asked for, from argument, environment or default, checked before any work.

Pure decisions, no I/O. Every option has an environment variable SHARDAHEAD_<OPTION>, which counts
where the argument is not given.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from shardahead import _core
from shardahead.arguments import number_between, parse_count, shown
from shardahead.environment import PREFIX, is_on, new_warning
from shardahead.units import parse_bytes

STRATEGIES = ("auto", "populate", "fadvise", "readahead", "pread")
PARTITIONS = ("dynamic", "block", "file")
DEFAULT_PARTITION = "dynamic"
DEFAULT_BOARD_FOLDER = "/dev/shm"
MODES = ("auto", "mmap", "pread")

logger = logging.getLogger("shardahead")

T = TypeVar("T", int, str)


@dataclass(frozen=True)
class PrefetchOptions:
    """Options of one prefetch, complete and valid.

    `block_size_given` is False where `block_bytes` is the default, which may give way to the layout
    of the files (stripes.py). `window_bytes` 0 means no limit, None that memory decides;
    `inflight_bytes` 0 that it is found by measuring; `memory_budget_bytes` None that the machine
    and its cgroups are asked.
    """

    threads: int
    block_bytes: int
    block_size_given: bool
    strategy: str
    partition: str
    window_bytes: int | None
    inflight_bytes: int
    board_folder: str
    memory_budget_bytes: int | None


def is_disabled(environ: Mapping[str, str] | None = None) -> bool:
    """Whether SHARDAHEAD_DISABLE asks for no prefetching at all. Raises ValueError where it is
    neither yes nor no: `environment.is_on`.
    """
    return is_on(PREFIX + "DISABLE", os.environ if environ is None else environ)


def is_prefetched_unasked(mount_classes: Iterable[str]) -> bool:
    """Whether an engine's plugin prefetches where nobody asked for it or against it: where bytes of
    one of the mounts come from outside this kernel (`Mount.mount_class`).
    """
    return any(mount_class in ("network", "user_space") for mount_class in mount_classes)


def resolve_options(
    *,
    threads: int | None = None,
    block_size: int | None = None,
    strategy: str | None = None,
    partition: str | None = None,
    window_bytes: int | None = None,
    inflight_bytes: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> PrefetchOptions:
    """The options in force: argument, else environment, else default.

    Raises ValueError with the argument (or variable) and its value where one is out of range or
    unknown, and TypeError where it has the wrong type. Variables that nothing reads are logged
    once, at WARNING.
    """
    environ = os.environ if environ is None else environ
    if warning := new_warning(environ):
        logger.warning("%s", warning)
    return PrefetchOptions(
        threads=_number(
            "threads",
            threads,
            environ,
            _core.DEFAULT_THREADS,
            1,
            _core.MAX_THREADS,
            parse=parse_count,
        ),
        block_bytes=_number(
            "block_size",
            block_size,
            environ,
            _core.DEFAULT_BLOCK_BYTES,
            _core.MIN_BLOCK_BYTES,
            _core.MAX_BLOCK_BYTES,
        ),
        block_size_given=block_size is not None
        or _from_environment("block_size", environ, str.strip) is not None,
        strategy=_choice("strategy", strategy, environ, "auto", STRATEGIES),
        partition=_choice("partition", partition, environ, DEFAULT_PARTITION, PARTITIONS),
        window_bytes=_number_or_none("window_bytes", window_bytes, environ, 0, 2**63 - 1),
        inflight_bytes=_number("inflight_bytes", inflight_bytes, environ, 0, 0, 2**63 - 1),
        board_folder=environ.get(PREFIX + "BOARD_FOLDER") or DEFAULT_BOARD_FOLDER,
        memory_budget_bytes=_number_or_none("memory_budget_bytes", None, environ, 0, 2**63 - 1),
    )


def resolve_mode(mode: str | None, environ: Mapping[str, str] | None = None) -> str:
    """How the weight iterators get at tensors. Raises ValueError as `resolve_options` does."""
    return _choice("mode", mode, os.environ if environ is None else environ, "auto", MODES)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """`value` where it is one of `choices`; else ValueError with `name`, choices and value."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {shown(value)}")
    return value


def _from_environment(
    name: str, environ: Mapping[str, str], parse: Callable[[str], T]
) -> tuple[str, T] | None:
    """The variable that counts and its value; what is empty is not set."""
    variable = PREFIX + name.upper()
    unit = ""
    if name == "block_size" and not environ.get(variable):
        variable, unit = variable + "_MB", "MiB"
    text = environ.get(variable)
    if not text:
        return None
    try:
        return variable, parse(text + unit)
    except ValueError as error:
        problem = f"not a number of {unit}: {text!r} (example: 16)" if unit else error
        raise ValueError(f"{variable}: {problem}") from None


def _number(
    name: str,
    argument: int | None,
    environ: Mapping[str, str],
    default: int,
    least: int,
    most: int,
    *,
    parse: Callable[[str], int] = parse_bytes,
) -> int:
    if argument is not None:
        return number_between(name, argument, least, most)
    found = _from_environment(name, environ, parse)
    return default if found is None else number_between(*found, least, most)


def _number_or_none(
    name: str, argument: int | None, environ: Mapping[str, str], least: int, most: int
) -> int | None:
    if argument is None and not environ.get(PREFIX + name.upper()):
        return None
    return _number(name, argument, environ, 0, least, most)


def _choice(
    name: str,
    argument: str | None,
    environ: Mapping[str, str],
    default: str,
    choices: tuple[str, ...],
) -> str:
    if argument is not None:
        return check_choice(name, argument, choices)
    found = _from_environment(name, environ, str.strip)
    return default if found is None else check_choice(*found, choices)
