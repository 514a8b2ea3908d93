"""What lies where a whole replica would: it is none, and no loader is given it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from replica_support import check_same

import shardahead
from shardahead.replica.whole_replica import DOCUMENT


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"schema": "shardahead/replica/2"}',
        b'{"schema": "shardahead/replica/1", "files": [{"name": "../x"}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_document_that_is_none_makes_no_replica(model: Path, local: Path, content: bytes) -> None:
    replica = shardahead.stage(model, local)
    (Path(replica.path) / DOCUMENT).write_bytes(content)
    assert shardahead.replica_of(model, local) is None
    check_same(model, shardahead.stage(model, local).path)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_document_that_is_no_file_makes_no_replica(model: Path, local: Path, kind: str) -> None:
    replica = shardahead.stage(model, local)
    path = Path(replica.path) / DOCUMENT
    kept = path.rename(local / "document")
    if kind == "link":
        path.symlink_to(kept)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert shardahead.replica_of(model, local) is None


def test_files_that_were_written_to_make_no_replica(model: Path, local: Path) -> None:
    replica = shardahead.stage(model, local)
    with open(replica.paths[0], "r+b") as file:
        file.write(b"x")
    assert "written to" in str(replica.damage())
    assert shardahead.replica_of(model, local) is None
    check_same(model, shardahead.stage(model, local).path)
