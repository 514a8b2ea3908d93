"""What the tests of typed paths share: the command in this process, and folders to type."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from shard_support import write

from shardahead.command import cli

COMMANDS = ["warm", "status", "evict", "plan", "doctor"]
#: What lies beside shards and is none.
BESIDE = ["config.json", "tokenizer.json", "tokenizer.model", "README.md", "LICENSE", "merges.txt"]


def run(*words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def files_of(*words: object, below: Path | None = None, said: str = "") -> list[str]:
    """The paths of the shards, in order. On standard error is `said`, or nothing."""
    status, out, err = run("plan", "--json", *words)
    assert status == 0, err
    assert (said in err) if said else (err == ""), err
    files = [file["path"] for file in json.loads(out)["files"]]
    return [os.path.relpath(path, below) for path in files] if below else files


def wrong(status: int, *words: object) -> str:
    """What is said, in one line, and the same by each command."""
    said = set()
    for command in COMMANDS:
        found, out, err = run(command, *words)
        assert (found, out) == (status, ""), err
        assert err.count("\n") == 1
        said.add(err)
    (message,) = said
    return message


def make(folder: Path, *names: str) -> Path:
    for name in names:
        write(folder / name, 10 + len(name))
    return folder


def shell(folder: Path) -> list[str]:
    """What a shell makes of folder/*."""
    return sorted(str(path) for path in folder.iterdir() if not path.name.startswith("."))


def repository(cache: Path, name: str, *revisions: str, main: str = "") -> Path:
    """Its folder in a Hugging Face cache, the newest revision last."""
    folder = cache / f"models--{name.replace('/', '--')}"
    for number, revision in enumerate(revisions):
        blob = write(folder / "blobs" / f"blob-{revision}", 5)
        snapshot = folder / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
        os.utime(snapshot, ns=(0, number * 10**9))
    if main:
        write(folder / "refs" / "main").write_text(main)
    return folder
