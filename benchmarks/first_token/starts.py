"""The engines of first_token.py: how each is started, asked and read. Standard library only.

An engine runs in a session of its own, which is ended as a whole. One thread beside the caller's
for each process, which reads what that says and when.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOKENS = 16
START_SECONDS = 400.0
END_SECONDS = 40.0
REQUEST_SECONDS = 200.0
_LOADED = {
    "vllm": re.compile(r"Loading weights took ([0-9.]+) seconds"),
    "sglang": re.compile(r"Load weight end\. elapsed=([0-9.]+)"),
}
_OURS = "Shardahead loads"
_SHOWN = 300  # of a line of an engine that has failed: some are pages long
_ENVIRON = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "SGLANG_USE_CPU_ENGINE": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Case:
    """One engine in one way, by so many tensor parallel ranks."""

    engine: str  # "vllm" or "sglang"
    way: str  # "server" or "offline"
    ranks: int

    @property
    def name(self) -> str:
        return f"{self.engine}-{self.way}-tp{self.ranks}"


CASES = [
    *(Case("vllm", way, ranks) for way in ("offline", "server") for ranks in (1, 2)),
    *(Case("sglang", "server", ranks) for ranks in (1, 2)),
]
#: How Shardahead takes part, by the variables that say so. "without": its plugin is not run.
VARIANTS: dict[str, dict[str, str]] = {
    "without": {"VLLM_PLUGINS": "none", "SGLANG_PLUGINS": "none"},
    "installed": {},
    "switched off": {"SHARDAHEAD_DISABLE": "1"},
}


@dataclass
class Run:
    """What came of one start. Seconds are from there on; `load_seconds` are the engine's own."""

    weights_seconds: float
    first_token_seconds: float
    load_seconds: float
    tokens: list[list[int]]
    ours: int  # processes in which Shardahead loaded


@dataclass
class Said:
    """The lines of a process, each with when it came."""

    lines: list[tuple[float, str]] = field(default_factory=list)

    def matches(self, pattern: re.Pattern[str]) -> list[tuple[float, float]]:
        found = [(at, pattern.search(line)) for at, line in self.lines]
        return [(at, float(match[1])) for at, match in found if match]

    def tail(self) -> str:
        return "\n".join(line[:_SHOWN] for _, line in self.lines[-40:])


def run(case: Case, python: Path, checkpoint: Path, variant: str, prompts: Path, log: Path) -> Run:
    """One start of an engine, its first token, all tokens, its end."""
    if case.way == "offline":
        command = [str(python), str(HERE / "offline.py"), str(checkpoint), str(prompts)]
        command += [str(case.ranks), str(TOKENS)]
    else:
        port = free_port()
        command = [str(python), *server(case, checkpoint, port)]
    began = time.time()
    with _running(command, environ(case, variant), log) as (process, said):
        if case.way == "offline":
            process.wait(START_SECONDS)
        else:
            wait_until_ready(process, port, said)
            texts = json.loads(prompts.read_text())
            ask(case, port, texts[:1], 1)
            first_at = time.time()
            tokens = ask(case, port, texts, TOKENS)
    if case.way == "offline":
        found = [json.loads(line[6:]) for _, line in said.lines if line.startswith("FOUND ")]
        if not found:
            raise RuntimeError(f"{case.name} gave no tokens:\n{said.tail()}")
        first_at, tokens = found[0]["first_at"], found[0]["tokens"]
    loaded = said.matches(_LOADED[case.engine])
    if not loaded:
        raise RuntimeError(f"{case.name} did not say that its weights are loaded:\n{said.tail()}")
    return Run(
        weights_seconds=max(at for at, _ in loaded) - began,
        first_token_seconds=first_at - began,
        load_seconds=max(seconds for _, seconds in loaded),
        tokens=tokens,
        ours=sum(_OURS in line for _, line in said.lines),
    )


def server(case: Case, checkpoint: Path, port: int) -> list[str]:
    common = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    if case.engine == "vllm":
        start = ["-m", "vllm.entrypoints.cli.main", "serve", str(checkpoint)]
        sizes = ["--max-model-len", "256", "--max-num-seqs", "8"]
        more = ["--served-model-name", "m", "--enforce-eager"]
        return [*start, *common, *sizes, *more, "--tensor-parallel-size", str(case.ranks)]
    start = ["-m", "sglang.launch_server", "--model-path", str(checkpoint), "--device", "cpu"]
    backends = ["--attention-backend", "torch_native", "--sampling-backend", "pytorch"]
    sizes = ["--context-length", "256", "--max-total-tokens", "4096"]
    more = ["--disable-cuda-graph", "--skip-server-warmup", "--tp-size", str(case.ranks)]
    return [*start, *common, *backends, *sizes, *more]


def ask(case: Case, port: int, prompts: Sequence[str], tokens: int) -> list[list[int]]:
    """Greedy tokens for each prompt, by number."""
    if case.engine == "vllm":
        body: dict[str, Any] = {
            "model": "m",
            "prompt": list(prompts),
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        return [choice["token_ids"] for choice in post(port, "/v1/completions", body)["choices"]]
    sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    body = {"text": list(prompts), "sampling_params": sampling}
    return [answer["output_ids"] for answer in post(port, "/generate", body)]


def post(port: int, path: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:
        return json.loads(answer.read())


def wait_until_ready(process: subprocess.Popen[str], port: int, said: Said) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not come up:\n{said.tail()}")


def environ(case: Case, variant: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SHARDAHEAD_")}
    if case.engine == "sglang":
        own["PYTHONPATH"] = str(HERE / "stand_in")
        own["SGLANG_CPU_OMP_THREADS_BIND"] = processors(case.ranks)
    else:
        own.pop("PYTHONPATH", None)
    threads = {"OMP_NUM_THREADS": "1" if case.ranks > 1 else "2"}
    return {**own, **_ENVIRON, **threads, **VARIANTS[variant]}


def processors(ranks: int) -> str:
    """A part of them for each rank: SGLang divides them by itself only where they have as many
    nodes of memory.
    """
    all_of_them = sorted(os.sched_getaffinity(0))
    each = max(1, len(all_of_them) // ranks)
    parts = [all_of_them[each * rank : each * (rank + 1)] for rank in range(ranks)]
    return "|".join(",".join(map(str, part or all_of_them[:1])) for part in parts)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _running(
    command: Sequence[str], env: Mapping[str, str], log: Path
) -> Iterator[tuple[subprocess.Popen[str], Said]]:
    said = Said()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(env),
        start_new_session=True,
    )

    def read() -> None:
        assert process.stdout is not None
        with open(log, "w") as file:
            for line in process.stdout:
                said.lines.append((time.time(), line.rstrip("\n")))
                file.write(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process, said
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its session is its own
        process.wait()
        reader.join(END_SECONDS)
