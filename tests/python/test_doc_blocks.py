"""Every block of code in the documents is run, parsed, or marked as needing what is not here.

Python runs in one process, which makes small checkpoints first, the commands in another; paths
below /models, /runs and /local/models mean those. A block that is neither run nor marked fails.
"""

from __future__ import annotations

import ast
import configparser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, clean_environment
from doc_blocks import Block, blocks, blocks_of, programs, script_of, shardahead_commands

from shardahead.command.cli import _parser

BLOCKS = blocks()
RUN = {"python", "sh", "console"}
PARSED = {"json"}
#: What the tests run of a script, and what does nothing by itself.
RUN_PROGRAMS = {"shardahead", "torchrun"}
HARMLESS = {"set", "wait", "cd", "true", "false", "exit", "export"}
NOT_CODE = {"text"}  # what something printed, or a drawing
#: What a block may need. One that needs something else says so here first.
KNOWN_NEEDS = {
    "a GPU",
    "a Python's source",
    "a mount like this",
    "a script of yours",
    "a shell of yours",
    "a slow filesystem and minutes",
    "an environment of its own",
    "diffusers",
    "docker",
    "gdb",
    "huggingface_hub",
    "kubernetes",
    "llama-cpp-python",
    "llama.cpp",
    "minutes",
    "perf",
    "ray",
    "reports of loads",
    "root",
    "several nodes",
    "sglang",
    "slurm",
    "systemd",
    "tensorrt_llm",
    "transformers",
    "transformers and accelerate",
    "vllm",
}
#: With these a command stays until it is ended: it is parsed, and not run.
ENDLESS = {"--follow", "--keep", "--watch"}

MAKE_CHECKPOINTS = """
import json, os, sys
from pathlib import Path
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

root = Path(sys.argv[1])
names = ["layers.0.weight", "layers.1.weight"]
for folder in ("m", "lora"):
    (root / "models" / folder).mkdir(parents=True)
    save_file({name: torch.ones(64, 64) for name in names},
              root / "models" / folder / "model.safetensors")
(root / "models" / "m" / "config.json").write_text("{}")
(root / "local").mkdir()
pipeline = root / "models" / "pipeline"
(pipeline / "unet").mkdir(parents=True)
save_file({"weight": torch.ones(64)}, pipeline / "unet" / "diffusion_pytorch_model.safetensors")
(pipeline / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet"]}))
(root / "models" / "gguf").mkdir()
for kind in ("Q4_K_M", "Q8_0"):
    (root / "models" / "gguf" / f"m-{kind}.gguf").write_bytes(b"GGUF" + bytes(10000))
snapshot = root / "hub" / "models--Qwen--Qwen2-0.5B" / "snapshots" / "0"
snapshot.mkdir(parents=True)
save_file({"weight": torch.ones(64)}, snapshot / "model.safetensors")
(root / "runs").mkdir()
dcp.save({"weight": torch.ones(256, 256)}, checkpoint_id=root / "runs" / "step-1000", no_dist=True)
"""

# Each block in a namespace of its own, in which there is what the text around it tells of.
RUN_PYTHON = """
import ast, asyncio, inspect, traceback
from collections import defaultdict
import shardahead

def run(name, code):
    space = {"__name__": name, "params": defaultdict(lambda: torch.empty(64, 64)),
             "load_as_ever": lambda path: None}
    exec("from shardahead import *", space)
    compiled = compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    done = eval(compiled, space)
    if inspect.iscoroutine(done):
        asyncio.run(_awaited(done))

async def _awaited(coroutine):
    await coroutine

failed = {}
for name, code in json.load(sys.stdin):
    try:
        run(name, code)
    except BaseException:
        failed[name] = traceback.format_exc()
(root / "failed.json").write_text(json.dumps(failed))
"""

RUN_COMMANDS = """
import contextlib, io, json, sys
from pathlib import Path
from shardahead.command.cli import main

failed = {}
for name, words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as error:
            status = error.code
    if status:
        failed[f"{name}: {words}"] = f"{status}: {out.getvalue()} {err.getvalue()}"
Path(sys.argv[1], "failed.json").write_text(json.dumps(failed))
"""


def here(text: str, root: Path) -> str:
    parts = [
        re.sub(r"/(?:models|runs)\b", rf"{root}\g<0>", part) for part in text.split("/local/models")
    ]
    return f"{root}/local".join(parts)


def of(*languages: str, marked: bool | None = None) -> list[Block]:
    found = [block for block in BLOCKS if block.language in languages]
    return found if marked is None else [block for block in found if bool(block.needs) == marked]


def failed_in(script: str, work: object, root: Path) -> dict[str, str]:
    """What went wrong, by block."""
    done = subprocess.run(
        [sys.executable, "-c", script, root],
        input=json.dumps(work),
        capture_output=True,
        text=True,
        env={**clean_environment(), "HF_HUB_CACHE": str(root / "hub")},
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed: dict[str, str] = json.loads((root / "failed.json").read_text())
    return failed


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Where the checkpoints are, and which blocks of Python have failed."""
    for module in ("torch", "safetensors"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    root = tmp_path_factory.mktemp("documents")
    work = [(block.name, here(block.code, root)) for block in of("python", marked=False)]
    return root, failed_in(MAKE_CHECKPOINTS + RUN_PYTHON, work, root)


def name_of(block: Block) -> str:
    return block.name


def test_there_are_blocks_of_each_kind() -> None:
    assert len(of("python", marked=False)) > 5
    assert len(of("sh", "console")) > 20
    assert len(of("yaml")) > 3


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_a_block_is_run_or_marked(block: Block) -> None:
    if block.needs:
        assert block.needs in KNOWN_NEEDS
    elif block.language in NOT_CODE:
        typed = [line for line in block.code.splitlines() if line.startswith("$ ")]
        assert not typed, "what is typed belongs into a block of console or sh"
    else:
        assert block.language in RUN | PARSED, "neither run nor marked: <!-- needs: WHAT -->"
        assert not not_run_in(block), "neither run nor marked: <!-- needs: WHAT -->"


def not_run_in(block: Block) -> set[str]:
    """Programs of a script that no test runs."""
    if block.language not in ("sh", "console"):
        return set()
    return set(programs(script_of(block))) - RUN_PROGRAMS - HARMLESS


def test_a_program_that_nobody_runs_would_be_found() -> None:
    script = (
        "set -e  # srun\n"
        "A=1 shardahead warm /m || true\n"
        "cat <<< x | jq '.a;b' && sudo \\\n  shardahead evict /m 2> log\n"
        "if true; then srun shardahead warm /m & fi\n"
        "(cd /m; torchrun x)\n"
    )
    assert programs(script) == [
        *("set", "shardahead", "true", "cat", "jq", "sudo"),
        *("true", "srun", "cd", "torchrun"),
    ]
    (block,) = blocks_of(f"```sh\n{script}```\n", "d")
    assert not_run_in(block) == {"cat", "jq", "sudo", "srun"}


def test_a_block_without_a_language_or_a_mark_would_be_found() -> None:
    text = "```\n$ x\n```\n\n<!-- needs: y -->\n```python\nz\n```\n- a\n  ```sh\n  b\n  ```\n"
    found = blocks_of(text, "d")
    assert [(b.language, b.code, b.needs, b.line) for b in found] == [
        ("", "$ x\n", "", 1),
        ("python", "z\n", "y", 6),
        ("sh", "b\n", "", 10),
    ]


def test_python_runs(ran: tuple[Path, dict[str, str]]) -> None:
    assert ran[1] == {}


@pytest.mark.parametrize("block", of("python", marked=True), ids=name_of)
def test_python_that_cannot_run_is_python(block: Block) -> None:
    ast.parse(block.code)


def commands(marked: bool) -> Iterator[tuple[str, list[str]]]:
    for block in of("sh", "console", marked=marked):
        for words in shardahead_commands(script_of(block)):
            yield block.name, [word.replace("$checkpoint", "/models/m") for word in words]


def test_the_commands_run(ran: tuple[Path, dict[str, str]]) -> None:
    root = ran[0]
    work = [
        (name, [here(word, root) for word in words])
        for name, words in commands(marked=False)
        if words[0] != "bench" and not ENDLESS & set(words)
    ]
    assert len(work) > 20
    assert failed_in(RUN_COMMANDS, work, root) == {}


def torchrun_lines() -> list[str]:
    lines = [
        line.split("#")[0].strip()
        for block in of("sh", "console", marked=False)
        for line in script_of(block).replace("\\\n", " ").splitlines()
    ]
    return sorted({line for line in lines if line.startswith("torchrun ")})


@pytest.mark.parametrize("line", torchrun_lines())
def test_what_torchrun_starts_runs(ran: tuple[Path, dict[str, str]], line: str) -> None:
    beside = os.path.dirname(sys.executable)
    if shutil.which("torchrun", path=beside) is None:
        pytest.skip("torchrun is not installed")
    environment = {**clean_environment(), "PATH": f"{beside}:{os.environ['PATH']}"}
    done = subprocess.run(
        here(line, ran[0]), shell=True, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warm: " in done.stdout


PARSED_ONLY = [
    *commands(marked=True),
    *(each for each in commands(marked=False) if ENDLESS & set(each[1])),
]


@pytest.mark.parametrize(("name", "words"), PARSED_ONLY)
def test_commands_that_are_not_run_are_right(name: str, words: list[str]) -> None:
    if words[0] != "bench":
        assert callable(_parser().parse_args(words).run), name
        return
    known = (REPOSITORY / "benchmarks" / "bench" / "options.cpp").read_text()
    for word in words:  # a program of its own parses them
        assert not word.startswith("--") or f'"{word.removeprefix("--")}"' in known, name


def test_commands_are_found() -> None:
    script = (
        "A=1 shardahead warm /m  # it\n"
        "srun --x=1 \\\n  shardahead warm --quiet /m &\n"
        "pip install shardahead\n"
        "torchrun -m shardahead plan /m\n"
        "x || shardahead status --json /m | grep y\n"
        "shardahead evict /m 2> z\n"
        "/opt/bin/shardahead evict /n || true\n"
    )
    assert [" ".join(words) for words in shardahead_commands(script)] == [
        "warm /m",
        "warm --quiet /m",
        "plan /m",
        "status --json /m",
        "evict /m",
        "evict /n",
    ]


SHELL = [block for block in of("sh", "console") if script_of(block).strip()]


@pytest.mark.parametrize("block", SHELL, ids=name_of)
def test_the_shell_understands_it(block: Block) -> None:
    script = script_of(block)
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    paths = []
    for block in SHELL:
        path = tmp_path / f"{block.name.replace('/', '-')}.sh"
        script = script_of(block)
        # Of a single line it is not known which shell types it.
        path.write_text(script if script.startswith("#!") else f"#!/bin/bash\n{script}")
        paths.append(path)
    # SC1091: a file that is sourced is not here.
    done = subprocess.run(
        ["shellcheck", "--exclude", "SC1091", *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("block", of("yaml"), ids=name_of)
def test_yaml_is_yaml(block: Block) -> None:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load(block.code)
    assert isinstance(document, dict)
    for words in commands_within(document):
        assert callable(_parser().parse_args(words).run)


def commands_within(part: object) -> Iterator[list[str]]:
    """Of Kubernetes: lists that are a command, and what a shell is given."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "command" and value[0] == "shardahead":
                yield value[1:]
            elif key == "command":
                yield from shardahead_commands(value[-1])
            else:
                yield from commands_within(value)
    elif isinstance(part, list):
        for value in part:
            yield from commands_within(value)


@pytest.mark.parametrize("block", of("ini"), ids=name_of)
def test_a_unit_is_a_unit(block: Block) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.code)
    assert set(unit.sections()) <= {"Unit", "Service", "Install"}
    for name in ("ExecStart", "ExecStartPre"):
        line = unit.get("Service", name, fallback="")
        for words in shardahead_commands(line.removeprefix("-")):
            assert callable(_parser().parse_args(words).run)


def test_json_is_json() -> None:
    for block in of("json"):
        assert json.loads(block.code) is not None, block.name
