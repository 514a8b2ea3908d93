"""Options: what a caller asks for, and what is in force of it, checked before any work.

Pure decisions, no I/O. An argument counts before a field of `options=`, that before the variable
SHARDAHEAD_<OPTION>, and the variable before the default. Any thread.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from shardahead import _core
from shardahead.arguments import number_between, parse_count, parse_rate, shown
from shardahead.environment import PREFIX, is_on, new_warning
from shardahead.units import parse_bytes, quoted

Strategy: TypeAlias = Literal["auto", "populate", "fadvise", "readahead", "pread"]
Partition: TypeAlias = Literal["dynamic", "block", "file"]
Mode: TypeAlias = Literal["auto", "mmap", "pread"]
#: A number of bytes: 16777216, or "16MiB".
Size: TypeAlias = int | str
#: A number of bytes per second: 200000000, "200MB" or "200MB/s".
Rate: TypeAlias = int | str

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
PARTITIONS: tuple[Partition, ...] = get_args(Partition)
MODES: tuple[Mode, ...] = get_args(Mode)
DEFAULT_PARTITION: Partition = "dynamic"
DEFAULT_BOARD_FOLDER = "/dev/shm"
MOST_BYTES = 2**63 - 1
MOST_KEY_CHARACTERS = 200

logger = logging.getLogger("shardahead")

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "strategy": STRATEGIES,
    "partition": PARTITIONS,
    "mode": MODES,
}
_SIZES = {
    "block_size": (_core.MIN_BLOCK_BYTES, _core.MAX_BLOCK_BYTES),
    "window_bytes": (0, MOST_BYTES),
    "inflight_bytes": (0, MOST_BYTES),
    "memory_budget_bytes": (0, MOST_BYTES),
}
_RATES = {"rate_limit": (0, MOST_BYTES)}
_FOLDERS = ("board_folder", "report", "learn", "replica")
# Of options whose variable has another name.
_VARIABLES = {"replica": "replica_folder"}
_PARSERS = {**dict.fromkeys(_SIZES, parse_bytes), **dict.fromkeys(_RATES, parse_rate)}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be asked of every entry as `options=`: one value for all of them, checked when it is
    made, hashable, to be pickled, and changed by `dataclasses.replace`.

    None is not given: then the variable SHARDAHEAD_<OPTION> counts, else the default. A keyword of
    the call counts before the field. Sizes are numbers of bytes, or text with a unit, "16MiB"; they
    are kept as numbers. What means nothing to an entry is passed over there.

    threads: worker threads of this process, 1 to 256; 4 by default.
    block_size: bytes claimed and advised at once, 4 KiB to 1 GiB; 16 MiB by default.
    strategy: "auto" (default), "populate", "fadvise", "readahead" or "pread".
    partition: "dynamic" (default), "block" or "file".
    window_bytes: how far to be ahead of the slowest consumer; 0 is no limit. By default memory
        decides.
    inflight_bytes: what the whole node may have in flight, with `partition` "dynamic"; 0, the
        default, is found by measuring.
    mode: of the weight iterators: "auto" (default), "mmap" or "pread".
    memory_budget_bytes: what page cache may fill; by default that is measured.
    board_folder: where the board is on which local ranks meet, "/dev/shm" by default: the same for
        all that are to share the work.
    rate_limit: bytes per second that prefetching may take from storage on average, "200MB"; 0, the
        default, is no limit. What a consumer reads by itself is not held up.
    report: a folder in which each load writes a file about itself at its end; by default none does.
    learn: a folder in which each load leaves what it has touched of its checkpoint, and finds what
        the last one like it has left: only that is brought in then. By default none does. Of the
        weight iterators and `prefetching`.
    learn_key: loads of a checkpoint are alike where this is equal; by default where they are of the
        same rank of a job of the same size.
    replica: a folder on this node's own disk, or in its memory, in which a copy of each checkpoint
        is made while it is loaded, and from which later loads read it; by default there is none. Of
        the weight iterators.

    `memory_budget_bytes`, `board_folder`, `rate_limit` and `report` are of the node rather than of
    a load, and no keywords of the entries. In full: docs/settings.md. Raises ValueError with the
    field and its value where that is out of range or no choice, and TypeError where it is no
    number, no size, no text or no path.
    """

    threads: int | None = None
    block_size: Size | None = None
    strategy: Strategy | None = None
    partition: Partition | None = None
    window_bytes: Size | None = None
    inflight_bytes: Size | None = None
    mode: Mode | None = None
    memory_budget_bytes: Size | None = None
    board_folder: str | os.PathLike[str] | None = None
    rate_limit: Rate | None = None
    report: str | os.PathLike[str] | None = None
    learn: str | os.PathLike[str] | None = None
    learn_key: str | None = None
    replica: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, _checked(field.name, value, field.name))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Options:
        """What the variables SHARDAHEAD_* say, of this process where `environ` is None; None where
        they say nothing. Raises ValueError with the variable and its value where that is wrong.
        """
        environ = os.environ if environ is None else environ
        _warn_of_unread(environ)
        return cls(**{name: _from_environment(name, environ) for name in OPTION_NAMES})


OPTION_NAMES = tuple(field.name for field in dataclasses.fields(Options))


@dataclass(frozen=True)
class PrefetchOptions:
    """Options of one prefetch as they are in force: complete and valid.

    `block_size_given` is False where `block_bytes` is the default, which may give way to the layout
    of the files (fitted_blocks.py). `window_bytes` 0 means no limit, None that memory decides;
    `inflight_bytes` 0 that it is found by measuring; `rate_limit_bytes_per_s` 0 that there is none;
    `memory_budget_bytes` None that the machine and its cgroups are asked; `report` None that no
    file is written, `learn` None that nothing is learned; without a `learn_key` the rank counts;
    `replica` None that no copy is made or looked for.
    """

    threads: int
    block_bytes: int
    block_size_given: bool
    strategy: Strategy
    partition: Partition
    window_bytes: int | None
    inflight_bytes: int
    board_folder: str
    memory_budget_bytes: int | None
    rate_limit_bytes_per_s: int = 0
    report: str | None = None
    learn: str | None = None
    learn_key: str | None = None
    replica: str | None = None


@dataclass(frozen=True)
class Setting:
    """One option as it is in force where no call says otherwise: `value` in bytes where it is a
    size, in bytes per second where it is a rate, None where it is found out by looking at the
    machine; `origin` is the variable that says so, or "default".
    """

    name: str
    value: int | str | bool | None
    origin: str


def settings_in_force(environ: Mapping[str, str] | None = None) -> tuple[Setting, ...]:
    """Every field of `Options`, then "disable", with what says so. Raises as `resolve_options`."""
    environ = os.environ if environ is None else environ
    resolved = resolve_options(environ=environ)
    values: dict[str, Any] = {
        **{name: getattr(resolved, name, None) for name in OPTION_NAMES},
        "block_size": resolved.block_bytes,
        "rate_limit": resolved.rate_limit_bytes_per_s,
        "mode": resolve_mode(environ=environ),
        "disable": is_disabled(environ),
    }
    return tuple(
        Setting(name, value, _variable_of(name, environ) or "default")
        for name, value in values.items()
    )


def _variable_of(name: str, environ: Mapping[str, str]) -> str:
    """The variable that says what this option is; "" where none does."""
    variable = _variable(name)
    names = [variable, variable + "_MB"] if name == "block_size" else [variable]
    return next((each for each in names if environ.get(each)), "")


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


def asked_by(arguments: Mapping[str, Any]) -> Options:
    """What a call asks for, of whose arguments these are all, as locals() has them: of the options
    the keyword where one is given, else the field of `options`. Raises as `Options` does.
    """
    options = arguments["options"]
    if options is None:
        options = Options()
    if not isinstance(options, Options):
        raise TypeError(f"options must be a shardahead.Options, not {shown(options)}")
    keywords = {name: arguments[name] for name in OPTION_NAMES if arguments.get(name) is not None}
    return dataclasses.replace(options, **keywords)


def resolve_options(
    options: Options | None = None, *, environ: Mapping[str, str] | None = None
) -> PrefetchOptions:
    """The options in force: what is asked for, else environment, else default.

    Raises ValueError with the variable and its value where one that counts is out of range or
    unknown. Variables that nothing reads are logged once, at WARNING.
    """
    environ = os.environ if environ is None else environ
    _warn_of_unread(environ)
    # Not by Options.from_environment(): what does not count is not judged either.
    found = {name: _counting(name, options, environ) for name in OPTION_NAMES if name != "mode"}
    block_size = found["block_size"]
    return PrefetchOptions(
        threads=_or(found["threads"], _core.DEFAULT_THREADS),
        block_bytes=_or(block_size, _core.DEFAULT_BLOCK_BYTES),
        block_size_given=block_size is not None,
        strategy=_or(found["strategy"], "auto"),
        partition=_or(found["partition"], DEFAULT_PARTITION),
        window_bytes=found["window_bytes"],
        inflight_bytes=_or(found["inflight_bytes"], 0),
        board_folder=_or(found["board_folder"], DEFAULT_BOARD_FOLDER),
        memory_budget_bytes=found["memory_budget_bytes"],
        rate_limit_bytes_per_s=_or(found["rate_limit"], 0),
        report=found["report"],
        learn=found["learn"],
        learn_key=found["learn_key"],
        replica=found["replica"],
    )


def resolve_mode(
    options: Options | None = None, *, environ: Mapping[str, str] | None = None
) -> Mode:
    """How the weight iterators get at tensors. Raises ValueError as `resolve_options` does."""
    mode: Mode = _or(_counting("mode", options, os.environ if environ is None else environ), "auto")
    return mode


def _counting(name: str, options: Options | None, environ: Mapping[str, str]) -> Any:
    asked = getattr(options, name, None)
    return _from_environment(name, environ) if asked is None else asked


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _variable(name: str) -> str:
    return PREFIX + _VARIABLES.get(name, name).upper()


def _from_environment(name: str, environ: Mapping[str, str]) -> Any:
    """What the variable of this option says; None where it is not set, or empty."""
    variable = _variable(name)
    unit = ""
    if name == "block_size" and not environ.get(variable):
        variable, unit = variable + "_MB", "MiB"
    text = environ.get(variable)
    if not text:
        return None
    value: object = text.strip() if name in _CHOICES else text
    try:
        if name == "threads":
            value = parse_count(text)
        elif name in _PARSERS:
            value = _PARSERS[name](text + unit)
    except ValueError as error:
        problem = f"not a number of {unit}: {quoted(text)} (example: 16)" if unit else error
        raise ValueError(f"{variable}: {problem}") from None
    return _checked(name, value, variable)


def _checked(option: str, value: object, name: str) -> object:
    """The value of this option as it is kept. Errors call it `name`."""
    if option in _CHOICES:
        return _choice(name, value, _CHOICES[option])
    if option in _FOLDERS:
        return _folder(name, value)
    if option == "learn_key":
        return _key(name, value)
    if option == "threads":
        return number_between(name, value, 1, _core.MAX_THREADS)
    return _size(name, value, *{**_SIZES, **_RATES}[option], _PARSERS[option])


def _choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {shown(value)}")
    return choices[choices.index(value)]  # not what is equal to it, an Enum of str say


def _size(
    name: str, value: object, least: int, most: int, parse: Callable[[str], int] = parse_bytes
) -> int:
    if not isinstance(value, str):
        return number_between(name, value, least, most)
    try:
        count = parse(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not least <= count <= most:
        raise ValueError(f"{name} must be between {least} and {most}, not {shown(value)}")
    return count


def _folder(name: str, value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, not {shown(value)}")
    folder = os.fsdecode(value)
    if not folder or "\0" in folder:
        raise ValueError(f"{name} must be a path, not {shown(value)}")
    return folder


def _key(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {shown(value)}")
    if not 0 < len(value) <= MOST_KEY_CHARACTERS:
        raise ValueError(
            f"{name} must have 1 to {MOST_KEY_CHARACTERS} characters, not {len(value)}"
        )
    return str(value)


def _warn_of_unread(environ: Mapping[str, str]) -> None:
    if warning := new_warning(environ):
        logger.warning("%s", warning)
