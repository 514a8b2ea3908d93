"""The processes that load: started, asked all at once, ended. Not for several threads."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from device_process import serve

_END_SECONDS = 10.0
_KILLED_SECONDS = 2.0


class LoadError(RuntimeError):
    """A process could not do what it was asked; the text is its own."""


class NoAnswerError(LoadError):
    """None came in time, or the process has ended."""


class Processes:
    """`limit_seconds` is how long an answer may take. Whoever takes longer is killed with all
    others, and new ones are started: they know of no files.
    """

    def __init__(self, device: str, count: int, limit_seconds: float) -> None:
        # The copies by threads are those that the ways name, and no others.
        os.environ["OMP_NUM_THREADS"] = "1"
        self._device = device
        self._count = count
        self._limit_seconds = limit_seconds
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._start()

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        """What each answers, by rank. Raises LoadError with the first failure, NoAnswerError where
        one takes too long or has ended.
        """
        for connection in self._connections:
            connection.send((name, *arguments))
        try:
            answers = [self._answer(rank) for rank in range(self._count)]
        except NoAnswerError:
            self._kill()
            self._start()
            raise
        for kind, answer in answers:
            if kind == "failed":
                raise LoadError(answer)
        return [answer for _, answer in answers]

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connections = []
        self._processes = []
        for rank in range(self._count):
            ours, theirs = context.Pipe()
            arguments = (theirs, self._device, rank, self._count)
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def _answer(self, rank: int) -> tuple[str, Any]:
        try:
            if not self._connections[rank].poll(self._limit_seconds):
                raise NoAnswerError(f"process {rank} did not answer in {self._limit_seconds:g} s")
            answer: tuple[str, Any] = self._connections[rank].recv()
        except (EOFError, ConnectionResetError):
            self._processes[rank].join(_END_SECONDS)
            code = self._processes[rank].exitcode
            raise NoAnswerError(f"process {rank} ended with {code}") from None
        return answer

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.join(_KILLED_SECONDS)  # one that the driver holds may stay

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in self._connections:
            try:
                connection.send(None)
            except OSError:
                continue
        for process in self._processes:
            process.join(_END_SECONDS)
            if process.is_alive():
                process.kill()
