"""Processes that need not import torch again.

A Nursery imports everything once and forks a child for each script; the child ends as any Python
process does, through the interpreter's own shutdown. Nothing here judges the product.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_SECONDS, clean_environment, eventually, rank_variables

_NURSERY = """
import ctypes, faulthandler, json, os, signal, sys, time, traceback
import safetensors.torch, torch
import shardahead, shardahead.command.cli
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        break
    print(child, flush=True)
else:
    sys.exit()
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
os.dup2(os.open(order["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
os.environ.update(order["env"])
sys.argv = ["script", *order["arguments"]]
exec(compile(order["script"], "script", "exec"))
"""


class Child:
    """A process of a nursery. `seconds` is how long its end took since `since`."""

    def __init__(self, nursery: Nursery, pid: int, out: Path, err: Path) -> None:
        self._nursery = nursery
        self._end = os.pidfd_open(pid)
        self._status: int | None = None
        self.pid = pid
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    @property
    def err(self) -> str:
        return self._err.read_text() if self._err.exists() else ""

    def says(self, line: str) -> bool:
        return line in self.out.splitlines()

    def wait_until_says(self, line: str) -> None:
        eventually(lambda: self.says(line) or self.ended, f"never said {line!r}: {self.err}")
        assert self.says(line), self.err

    @property
    def ended(self) -> bool:
        return bool(select.select([self._end], [], [], 0)[0])

    def kill(self, number: int = signal.SIGKILL) -> None:
        if not self.ended:
            signal.pidfd_send_signal(self._end, number)

    def status(self, seconds: float = HANG_SECONDS) -> int:
        """Its exit status, -N for a signal; a child that does not end in time fails the test."""
        if self._status is None:
            if not select.select([self._end], [], [], max(0.0, seconds))[0]:
                stack = self.stacks()
                self.kill()
                pytest.fail(f"not ended in time: {self.out}\n{self.err}\n{stack}")
            self._status = self._nursery.ask({"wait": self.pid})
            os.close(self._end)
        return self._status

    def result(self) -> Any:
        """What it printed in its last line, as JSON. It must end with status 0."""
        assert self.status() == 0, self.err
        return json.loads(self.out.splitlines()[-1])

    def is_runnable(self) -> bool:
        """Whether one of its threads runs, or waits for nothing but a processor."""
        for task in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):
                if task.read_text().rpartition(")")[2].split()[0] == "R":
                    return True
        return False

    def stacks(self) -> str:
        """Where its threads sleep in the kernel, for the message of a test that fails."""
        found = []
        for task in Path(f"/proc/{self.pid}/task").glob("*"):
            try:
                name, where = (task / "comm").read_text(), (task / "wchan").read_text()
            except OSError:
                continue
            found.append(f"{name.strip()}: {where}")
        return ", ".join(found)


class Nursery:
    """Forks children that have torch and shardahead imported already. One thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY],
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "ready"

    def start(self, script: str, *arguments: object, env: dict[str, str] | None = None) -> Child:
        name = str(len(self._children))
        out, err = self._folder / f"{name}.out", self._folder / f"{name}.err"
        order = {
            "script": script,
            "arguments": [str(argument) for argument in arguments],
            "env": env or {},
            "out": str(out),
            "err": str(err),
        }
        child = Child(self, self.ask(order), out, err)
        self._children.append(child)
        return child

    def run(self, script: str, *arguments: object, env: dict[str, str] | None = None) -> Any:
        """What `script` printed in its last line, as JSON. It must end with status 0."""
        return self.start(script, *arguments, env=env).result()

    def run_ranks(
        self, script: str, size: int, *arguments: object, env: dict[str, str] | None = None
    ) -> list[Any]:
        """The same of `size` processes; all at once, with torchrun's variables."""
        ranks = [self.start(script, *arguments, env=ours) for ours in rank_variables(size, env)]
        return [rank.result() for rank in ranks]

    def ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def close(self) -> None:
        for child in self._children:
            if child._status is None:
                child.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(HANG_SECONDS)
        self._process.stdout.close()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def nursery_in(folder: Path) -> Iterator[Nursery]:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors.torch")
    nursery = Nursery(folder)
    try:
        yield nursery
    finally:
        nursery.close()
