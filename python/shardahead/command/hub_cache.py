"""Where the Hugging Face cache of this user holds a repository. It never asks the network.

`huggingface_hub` is asked where it is installed; else, and where it knows of none, the layout of
its cache says it: models--ORG--NAME/refs/main names the revision, snapshots/REVISION has the files.
Looks at the filesystem. Any thread.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

from shardahead.command.typed_paths import REPOSITORY_BEGIN

_MOST_BYTES_OF_REF = 1024


def cache_folder(environ: Mapping[str, str]) -> str:
    """As huggingface_hub finds it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return os.path.expanduser(environ[name])
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or os.path.join(caches, "huggingface")
    return os.path.join(os.path.expanduser(home), "hub")


def repository_of(folder: str) -> str:
    """ORG/NAME of the folder models--ORG--NAME; "" of another one."""
    name = os.path.basename(folder.rstrip("/"))
    if not name.startswith(REPOSITORY_BEGIN):
        return ""
    return name.removeprefix(REPOSITORY_BEGIN).replace("--", "/", 1)


def cached_repositories(cache: str) -> list[str]:
    """The ids of those that the cache has."""
    try:
        found = map(repository_of, os.listdir(cache))
    except OSError:
        return []
    return sorted(filter(None, found))


def find_snapshot(repository: str, environ: Mapping[str, str]) -> str | None:
    """The folder with the files of `repository`; None where the cache has none."""
    folder = REPOSITORY_BEGIN + repository.replace("/", "--")
    by_layout = snapshot_of(os.path.join(cache_folder(environ), folder))
    # A bare name is a file's, misspelt, as a rule: the library is slow to import.
    found = _asked(repository) if "/" in repository else None
    return found or by_layout


def _asked(repository: str) -> str | None:
    try:
        hub = importlib.import_module("huggingface_hub")
        found = hub.snapshot_download(repository, local_files_only=True)
    except Exception:  # whatever it raises, the layout is left
        return None
    return os.fspath(found) if found and os.path.isdir(found) else None


def snapshot_of(folder: str) -> str | None:
    """The folder of the revision that refs/main of a repository's folder names, else of the newest;
    None where there is none.
    """
    snapshots = os.path.join(folder, "snapshots")
    try:
        with open(os.path.join(folder, "refs", "main"), "rb") as file:
            revision = os.fsdecode(file.read(_MOST_BYTES_OF_REF).strip())
    except OSError:
        revision = ""
    if revision and "/" not in revision and "\0" not in revision and not revision.startswith("."):
        named = os.path.join(snapshots, revision)
        if os.path.isdir(named):
            return named
    try:
        with os.scandir(snapshots) as entries:
            found = [(e.stat().st_mtime_ns, e.path) for e in entries if e.is_dir()]
    except OSError:
        return None
    return max(found)[1] if found else None
