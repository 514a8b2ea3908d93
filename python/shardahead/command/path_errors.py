"""What is said of a PATH that cannot be used: what it looks like, and what to type instead. Pure.

Each is one line, which holds names as `quoted` shows them. Any thread.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Sequence

from shardahead.checkpoint.folder_rule import SeveralCheckpointsError, some_of
from shardahead.command.typed_paths import PIPELINE_INDEX, Filters, Listing
from shardahead.units import quoted

_ALIKE = 0.6
_MOST_CLOSE = 3
# Of the hub: with the repository as its second group.
_ADDRESS = re.compile("(?:hf://|[a-z][a-z0-9+.-]*://(?:huggingface[.]co/)?)([^/?#@]+/[^/?#@]+)?")
_UNMOUNTED = "; a filesystem that is not mounted there?"
_OF_HUB = re.compile("hf://|https?://huggingface[.]co/")
_VARIABLE = re.compile("[$]([A-Za-z_]|[{(])")
_BRACES = re.compile("[{][^{}]*(,|[.][.])[^{}]*[}]")
_NUMBER_OF_SET = re.compile(r"-[0-9]+(-of-[0-9]+)")


class NoShardsError(ValueError):
    """A folder, or what a PATH stands for, has none."""


def absent(path: str, missing: str, beside: Collection[str] | None, link: str | None = None) -> str:
    """Of a path of which `missing` is the part, from the beginning, that is not there first.
    `beside`: the names that are in its folder, None where they are not known. `link`: where it
    leads to, if it is a link.
    """
    text = f"{quoted(path)}: No such file or directory"
    if not path:
        return f"{text}: the PATH is empty; a variable that is not set?"
    if address := _ADDRESS.match(path):
        is_of_hub = _OF_HUB.match(path) and address[1]
        hub = f": type {quoted(address[1])}" if is_of_hub else ""
        return (
            f"{text}: it is an address, and only what is mounted here is read, or a repository in "
            f"the Hugging Face cache{hub}"
        )
    if path.startswith("~"):
        return f"{text}: the shell leaves a quoted ~ as it is: type {_with_home(path)}"
    if unexpanded := _left_by_shell(path):
        return f"{text}: {unexpanded}"
    if link is not None:
        return f"{text}: it is a link to {quoted(link)}, which is not there"
    folder, name = os.path.split(missing)
    # Without its ending, mostly: what is near by letters has another length.
    others = beside or ()
    close = sorted(other for other in others if name and other.startswith(f"{name}."))[:_MOST_CLOSE]
    close = close or difflib.get_close_matches(name, others, _MOST_CLOSE, _ALIKE)
    if close:
        meant = [quoted(os.path.join(folder, other)) for other in close]
        return f"{text}; did you mean {' or '.join(meant)}?"
    if beside is not None and not beside:
        return f"{text}: {quoted(folder or '.')} is empty{_UNMOUNTED}"
    if missing.rstrip("/") != path.rstrip("/"):
        return f"{text}: there is no folder {quoted(missing)}"
    return f"{text}; {quoted(folder or '.')} has nothing of a name like that"


def _left_by_shell(path: str) -> str:
    """What of a path that is not there is for a shell, which was kept from it by quotes."""
    if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":
        return "the quotes are a part of it: type one pair"
    if _VARIABLE.search(path):
        return "the shell leaves a variable in single quotes as it is: type it in double ones"
    if _BRACES.search(path):
        return "the shell leaves quoted braces as they are: type them without quotes"
    return ""


def _with_home(path: str) -> str:
    folder = os.path.expanduser(path)
    return "it without quotes" if folder == path else shlex.quote(folder)


def all_absent(errors: Sequence[FileNotFoundError]) -> FileNotFoundError:
    """One for all that are not there: of the first with what is to be typed."""
    if len(errors) == 1:
        return errors[0]
    others = "; ".join(str(error).partition(": ")[0] for error in errors[1 : 1 + _MOST_CLOSE])
    more = len(errors) - 1 - _MOST_CLOSE
    others += f" and {more} more" if more > 0 else ""
    return FileNotFoundError(f"{errors[0]}. Nor are there: {others}")


def meant_repositories(path: str, cached: Collection[str]) -> list[str]:
    """The ids of which somebody typed a part: the name alone, the folder of the cache without what
    is before it, or more than the id.
    """
    name = path.rstrip("/").partition("@")[0].lower()
    return [
        repository
        for repository in cached
        if name in (repository.lower(), repository.partition("/")[2].lower())
        or name == f"models--{repository.replace('/', '--')}".lower()
    ]


def not_by_its_id(path: str, repositories: Sequence[str]) -> str:
    meant = " or ".join(map(quoted, repositories[:_MOST_CLOSE]))
    return (
        f"{quoted(path)}: No such file or directory; a repository in the Hugging Face cache goes "
        f"by its id: type {meant}"
    )


def absent_repository(
    repository: str,
    cache: str,
    cached: Collection[str],
    beside: Collection[str],
    denied: str = "",
) -> str:
    """Of ORG/NAME that is neither a path nor in the cache, which has the ids `cached`. `beside`:
    the names in the current folder, of which ORG may be one that was misspelt. `denied`: why the
    cache may not be read.
    """
    if denied:
        return (
            f"{quoted(repository)}: No such file or directory, and the Hugging Face cache "
            f"{quoted(cache)} cannot be read{denied}"
        )
    folder, _, name = repository.partition("/")
    close = difflib.get_close_matches(repository, cached, _MOST_CLOSE, _ALIKE)
    close += [f"{other}/{name}" for other in difflib.get_close_matches(folder, beside, 1, _ALIKE)]
    meant = f"; did you mean {' or '.join(map(quoted, close))}?" if close else ""
    return (
        f"{quoted(repository)}: No such file or directory, and no repository of that name in the "
        f"Hugging Face cache {quoted(cache)}{meant}; to fetch it: hf download {repository}"
    )


def no_snapshot(folder: str, repository: str) -> str:
    fetch = f"; to fetch it: hf download {repository}" if repository else ""
    return f"no snapshot in the folder {quoted(folder)} of a Hugging Face cache{fetch}"


def not_whole(problem: str, repository: str) -> str:
    """Of a snapshot in which files are missing."""
    return f"{problem}; the download is not whole; to fetch the rest: hf download {repository}"


def matches_nothing(pattern: str, beside: Collection[str] | None) -> str:
    """Of a pattern. `beside`: the names that are in its folder, None where there is no such."""
    folder, name = os.path.split(pattern)
    where = quoted(folder or ".")
    text = f"{quoted(pattern)} matches nothing (No such file or directory)"
    if any(mark in folder for mark in "*?["):
        return text
    if beside is None:
        return f"{text}: there is no folder {where}"
    suffixes = Counter(os.path.splitext(other)[1] for other in beside)
    held = [f"*{suffix}" for suffix, _ in suffixes.most_common(_MOST_CLOSE + 1) if suffix]
    close = difflib.get_close_matches(name, held, 1, _ALIKE)
    if close:
        return f"{text}; did you mean {quoted(os.path.join(folder, close[0]))}?"
    return f"{text}; {where} has {', '.join(map(quoted, held)) or 'no files'}"


def no_shard(path: str) -> str:
    """Of a file that is typed alone."""
    folder = os.path.dirname(path) or "."
    return (
        f"{quoted(path)} is no shard: it looks like a configuration, a tokenizer or text beside "
        f"the weights; for the checkpoint type its folder: {shlex.quote(folder)}"
    )


def no_shards(folder: str, listing: Listing, holding: Sequence[str]) -> str:
    """Of a folder. `holding`: those of its folders in which there are shards."""
    where = quoted(folder)
    if holding:
        first = shlex.quote(os.path.join(folder, holding[0]))
        return (
            f"no shards in the folder {where} itself, but in its subfolders {some_of(holding)}: "
            f"type the one that is meant, {first} say"
        )
    if not listing.files and not listing.folders:
        return f"no shards in the folder {where}: it is empty{_UNMOUNTED}"
    text = f"no shards in the folder {where} (*.safetensors, *.bin, *.pt, *.pth, *.gguf, *.distcp)"
    names = listing.seen or listing.folders
    if "config.json" in names or PIPELINE_INDEX in names:
        return f"{text}, but {some_of(names)}: a checkpoint of which the weights were not fetched?"
    if not listing.files:
        return f"{text}, but {some_of(names)}" if names else text
    return f"{text}, but {some_of(names)}: what is to be read of them goes by its own PATH"


def nothing_left(where: str, filters: Filters, names: Sequence[str]) -> str:
    text = f"no shards: {filters.text()} leaves nothing of {where}"
    return f"{text}; there are {some_of(names)}" if names else text


def several(folder: str, error: SeveralCheckpointsError) -> str:
    """Of a folder with several checkpoints of which no rule says which is meant."""
    pattern = shlex.quote(_NUMBER_OF_SET.sub(r"-*\1", error.names[0]))
    return (
        f"several checkpoints in the folder {quoted(folder)}: {some_of(error.names)}: "
        f"type --include and the one that is meant, --include {pattern} say, or --all"
    )


def several_indexes(folder: str, error: SeveralCheckpointsError) -> str:
    path = shlex.quote(os.path.join(folder, error.names[0]))
    return (
        f"several indexes in the folder {quoted(folder)}: {some_of(error.names)}: "
        f"type the one that is meant instead of the folder, {path} say, or --all"
    )


def passed_over(paths: Sequence[str]) -> str:
    names = [os.path.basename(path.rstrip("/")) for path in paths]
    count = f"{len(names)} PATH{'' if len(names) == 1 else 's'}"
    return f"passed over {count} without shards: {some_of(names)}"
