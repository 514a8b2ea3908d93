"""What commands print with --json is what docs/schemas/ says: all of it, and with paths that can be
given back, whatever bytes they are of.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KIB,
    MIB,
    REPOSITORY,
    StrPath,
    clean_environment,
    eventually,
    finish,
    run_python,
    start_python,
    write_file,
)
from test_bench import BINARY

from shardahead import Options, prefetch_files

jsonschema = pytest.importorskip("jsonschema")

SCHEMAS = {path.stem: path for path in (REPOSITORY / "docs" / "schemas").glob("*.json")}
COMMANDS = ("warm", "status", "evict", "plan", "doctor")
# Not UTF-8, a line break, a backslash, and letters that are no ASCII.
NAME = b"\xff\n\\x41 gr\xc3\xbc\xc3\x9f.safetensors"


def schema_of(name: str) -> Any:
    return json.loads(SCHEMAS[f"{name}-1"].read_bytes())


def closed(schema: Any) -> Any:
    """The same, of which no field is left out: else one that nobody has described would pass."""
    if isinstance(schema, dict):
        found = {key: closed(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
            found["additionalProperties"] = False
        return found
    return [closed(each) for each in schema] if isinstance(schema, list) else schema


def check(document: Any, name: str) -> None:
    assert document["schema"] == f"shardahead/{name}/1"
    jsonschema.Draft202012Validator(closed(schema_of(name))).validate(document)


def command(*words: StrPath, status: int = 0, env: dict[str, str] | None = None) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "shardahead", *words],
        env={**clean_environment(), **(env or {})},
        capture_output=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.isascii()
    return json.loads(done.stdout)


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    """A shard with such a name."""
    found = os.path.join(os.fsencode(tmp_path), b"models", NAME)
    os.mkdir(os.path.dirname(found))
    with open(found, "wb") as file:
        file.write(b"x" * (64 * KIB + 1))
    return found


def required_places(
    schema: Any, document: Any, at: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """Where in the document there is a field that the schema requires."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name in schema.get("required", ()):
                yield (*at, name)
            yield from required_places(
                schema.get("properties", {}).get(name, {}), value, (*at, name)
            )
    elif isinstance(document, list) and document:
        yield from required_places(schema.get("items", {}), document[0], (*at, 0))


# ---- the commands ----


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_what_its_schema_says(path: bytes, name: str) -> None:
    found = command(name, "--json", os.path.dirname(path))
    check(found, name)


def test_a_stage_prints_what_its_schema_says(path: bytes, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    words = ("--json", "--to", tmp_path / "local")
    staged = command("stage", os.path.dirname(path), *words)
    check(staged, "stage")
    assert os.path.exists(os.path.join(os.fsencode(staged["path"]), NAME))
    for which in ("--list", "--verify"):
        found = command("stage", which, *words)
        check(found, "stage")
        assert os.fsencode(found["replicas"][0]["source"]) == os.path.dirname(path)


@pytest.mark.parametrize("name", ["status", "evict", "plan"])
def test_paths_can_be_given_back(path: bytes, name: str) -> None:
    found = command(name, "--json", path)
    (file,) = found["files"]
    assert os.fsencode(file["path"]) == path
    again = command(name, "--json", os.fsencode(file["path"]))
    assert again["files"][0]["path"] == file["path"]


def test_the_path_of_an_error_can_be_given_back(path: bytes) -> None:
    script = """
import errno, json, os, sys
from shardahead import prefetch_files
from shardahead.prefetch import report
error = OSError(errno.EIO, "Input/output error", os.fsdecode(sys.argv[1]))
handle = prefetch_files(sys.argv[1])
handle.wait()
import dataclasses
print(json.dumps(dataclasses.replace(handle.report(), errors=(error,)).to_dict()))
"""
    (error,) = run_python(script, path)["errors"]
    assert os.fsencode(error["path"]) == path


def test_doctor_gives_back_what_was_typed(path: bytes) -> None:
    (typed,) = command("doctor", "--json", path)["paths"]
    assert os.fsencode(typed) == path


def test_of_a_command_that_was_interrupted_the_schema_holds(tmp_path: Path) -> None:
    for name in COMMANDS:
        check({"schema": f"shardahead/{name}/1", "reason": "interrupted"}, name)
    script = """
import os, signal, sys
from shardahead.command import cli, commands
def interrupted(options):
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
commands.shards_of = interrupted
commands.interruptibly = lambda work: work()
sys.exit(cli.main(["plan", "--json", sys.argv[1]]))
"""
    done = finish(start_python(script, tmp_path))
    assert done.returncode == 130
    check(json.loads(done.stdout), "plan")


def test_an_incomplete_result_has_a_schema(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.safetensors", MIB)
    env = {"SHARDAHEAD_MEMORY_BUDGET_BYTES": "64KiB"}
    found = command("warm", "--json", "--block-size", "64KiB", path, status=1, env=env)
    assert found["reason"]
    check(found, "warm")


def test_a_report_of_a_load_is_as_its_schema_says(path: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    prefetch_files([path], options=Options(report=folder)).wait()
    eventually(lambda: [*folder.glob("*.json")], "no report is written")
    (file,) = folder.glob("*.json")
    check(json.loads(file.read_bytes()), "load")
    found = command("report", "--json", folder)
    check(found, "report")
    ((process,),) = [load["processes"] for load in found["loads"]]
    assert os.fsencode(process["files"][0]["path"]) == path
    assert process["file"] == str(file)


@pytest.mark.skipif(BINARY is None, reason="shardahead-bench is not built")
def test_bench_prints_what_its_schema_says(path: bytes) -> None:
    assert BINARY is not None
    words: list[StrPath] = [BINARY, "--json", "--repeats=1", "--threads=1", "--strategy=pread"]
    done = subprocess.run([*words, os.path.dirname(path)], capture_output=True, check=False)
    assert done.stdout.isascii()
    found = json.loads(done.stdout)
    check(found, "bench")
    assert os.fsencode(found["files"][0]["path"]) == path
    assert os.fsencode(found["options"]["paths"][0]) == os.path.dirname(path)


# ---- the schemas ----


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    schema = json.loads(SCHEMAS[name].read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"].replace("shardahead/", "").replace("/", "-") == name
    assert schema["properties"]["schema"]["const"] == schema["$id"]
    assert f"schemas/{name}.json" in (REPOSITORY / "docs" / "json.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_schema_misses_what_is_missing(path: bytes, name: str) -> None:
    found = command(name, "--json", path)
    places = [*required_places(schema_of(name), found)]
    assert places
    for place in places:
        less = copy.deepcopy(found)
        inside = less
        for step in place[:-1]:
            inside = inside[step]
        del inside[place[-1]]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema_of(name)).validate(less)


def test_what_has_no_field_more_passes_and_what_has_one_does_not(path: bytes) -> None:
    found = command("status", "--json", path)
    more = {**found, "more": 1}
    jsonschema.Draft202012Validator(schema_of("status")).validate(more)  # of a later version
    with pytest.raises(jsonschema.ValidationError):
        check(more, "status")
