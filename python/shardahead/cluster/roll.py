"""The roll of a job: who of its nodes is here, at which address, with which version of which
checkpoint, and who is gone, in an order that is the same for all. Pure; one thread at a time.
"""

from __future__ import annotations

from typing import Any


class RollError(Exception):
    """This node does not get on the roll; the text says why."""


class Roll:
    """Of `nodes` nodes."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        #: All that was noted: {"here": node, "host": its address, "port": its port}, or
        #: {"gone": node}.
        self.noted: list[dict[str, Any]] = []
        self._arrived = 0
        self._here: set[int] = set()
        self._version: str | None = None

    def arrive(self, node: int | None, version: str, host: str, port: int) -> int:
        """This node's number, the next one where it has none. Raises RollError where that is taken
        already, there are enough, or the job loads something else.
        """
        if node is None:
            node, self._arrived = self._arrived, self._arrived + 1
        if not 0 <= node < self.nodes:
            raise RollError(f"node {node} of {self.nodes}: there are enough")
        if node in self._here:
            raise RollError(f"node {node} has been here before: it goes on alone")
        self._here.add(node)
        if self._version is None:
            self._version = version
        if version != self._version:
            raise RollError("the first node of the job has another version of the checkpoint")
        self.noted.append({"here": node, "host": host, "port": port})
        return node

    def lose(self, node: int) -> None:
        """It is gone. The same node may be noted by several."""
        if 0 <= node < self.nodes and {"gone": node} not in self.noted:
            self.noted.append({"gone": node})
