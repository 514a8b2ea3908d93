"""A node's part in reading a checkpoint once for all nodes of a job: which blocks it is to read,
now, and what comes of the others. The talking is done by a process of its own (exchanger.py),
without which, or once it has ended, every block is this node's to read.

For one thread, but for stop(), figures and what reads the process's lines.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shardahead.cluster.assignment import Assignment
from shardahead.cluster.exchanger import main
from shardahead.cluster.reading import Reading
from shardahead.cluster.rendezvous import parse_address
from shardahead.cluster.talker import Talker
from shardahead.replica.layout import Layout
from shardahead.replica.staging import Staging

logger = logging.getLogger("shardahead")

MOST_NODES = 64
_NUMBER_SECONDS = 15.0
#: Of others that still take what this node has sent: so long without a change.
_LEAVE_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """Who exchanges. address: HOST:PORT where the nodes meet. nodes: how many. node: this one's
    number, from 0; None: by arrival. secret: what all of them know; without one the network must
    be trusted.
    """

    address: str
    nodes: int
    node: int | None = None
    secret: bytes = b""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        parse_address(self.address)
        if not 1 <= self.nodes <= MOST_NODES:
            raise ValueError(f"nodes must be between 1 and {MOST_NODES}, not {self.nodes}")
        if self.node is not None and not 0 <= self.node < self.nodes:
            raise ValueError(f"node must be between 0 and {self.nodes - 1}, not {self.node}")


@dataclass
class ExchangeFigures:
    """Of one node so far. wrong_blocks: that were not what they were said to be; refused: nodes
    that said what no node of the job would say. alone: why it reads by itself by now; "" while it
    does not.
    """

    received_bytes: int = 0
    sent_bytes: int = 0
    wrong_blocks: int = 0
    refused: int = 0
    node: int | None = None
    met: int = 0
    gone: int = 0
    alone: str = ""


class Exchange:
    """Of the blocks of `layout`, into the replica that is being made in `folder`."""

    def __init__(
        self,
        job: Job,
        layout: Layout,
        folder: str,
        targets: Sequence[str],
        versions: tuple[str, str],
        talker: Talker,
    ) -> None:
        self.figures: ExchangeFigures = ExchangeFigures()
        self._reading = Reading(Assignment(len(layout), job.nodes))
        self._changed = threading.Condition()
        self._left = False
        self._said_read_all: tuple[bool, int] | None = None
        address = parse_address(job.address)
        config: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "nodes": job.nodes,
            "node": job.node,
            "secret": job.secret.hex(),
            "version": versions[0],
            "contents": versions[1],
            "folder": folder,
            "targets": list(targets),
            "sizes_bytes": list(layout.sizes_bytes),
            "block_bytes": layout.block_bytes,
        }
        self._talker = talker
        self.figures.node = self._reading.node = job.node
        talker.say(config)
        threading.Thread(target=self._listen, name="shardahead-nodes", daemon=True).start()

    def wait_for_number(self, seconds: float) -> None:
        """For this node's number, without which it is not known what it is to read."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_number_or_none(), seconds)

    def _has_number_or_none(self) -> bool:
        return self._reading.node is not None or self._reading.over

    def to_read(self, absent: Sequence[int]) -> list[int]:
        """What of these blocks is this node's to read, when what it was given before is read."""
        with self._changed:
            now = time.monotonic()
            found = self._reading.to_read(absent, now)
            if not found and self._reading.has_waited_in_vain(now):
                self._reading.over = True
                self.figures.alone = "the other nodes send nothing any more"
                found = list(absent)
        self._has_read_all(read_all=not found)
        return found

    def is_to_read(self, block: int) -> bool:
        """It was given to this node, and is not another's by now."""
        with self._changed:
            return self._reading.is_to_read(block)

    def _has_read_all(self, *, read_all: bool) -> None:
        """As far as those are gone that are known to be."""
        said = read_all, self._reading.gone
        if said != self._said_read_all:
            self._said_read_all = said
            self._talker.say({"read_all": read_all, "gone": said[1]})

    def has_copied(self, block: int) -> None:
        """It is there, and can be sent. Any thread."""
        with self._changed:
            self._reading.has_copied()
        self._talker.say({"there": block})

    def wait(self, seconds: float) -> None:
        """For anything to change."""
        with self._changed:
            self._changed.wait(seconds)

    def finish(self) -> None:
        """This node has all blocks: waits until those that take its own have them."""
        self._talker.say({"finish": True})
        sent, since = -1, time.monotonic()
        with self._changed:
            while not self._left and not self._reading.over:
                if self.figures.sent_bytes != sent:
                    sent, since = self.figures.sent_bytes, time.monotonic()
                if time.monotonic() - since > _LEAVE_SECONDS:
                    break
                self._changed.wait(0.1)
        self.stop()

    def stop(self) -> None:
        """Ends the process that talks, wherever it is."""
        self._talker.stop()

    def _listen(self) -> None:
        try:
            for line in self._talker.lines():
                told = json.loads(line)
                with self._changed:
                    self._hear(told)
                    self._changed.notify_all()
        except ValueError:
            pass
        with self._changed:
            self._reading.over = True
            if not self.figures.alone and not self._left:
                self.figures.alone = "the exchange has ended"
            self._changed.notify_all()

    def _hear(self, told: dict[str, Any]) -> None:
        logger.debug("nodes: %s", told)
        event = told.get("event")
        if event == "arrived":
            self.figures.node = self._reading.node = told["node"]
        elif event == "met":
            self.figures.met += 1
            self._reading.meet(told["node"], time.monotonic())
        elif event == "gone":
            if self._reading.lose(told["node"]):
                self.figures.gone += 1
            if told["node"] == self.figures.node:
                logger.info("the other nodes took this one for gone: it reads no more for them")
        elif event == "not_here":
            self._reading.has_lost(told["block"])
        elif event == "read_all":
            self._reading.has_read_all(told["node"])
        elif event == "refused":
            node = "?" if told["node"] is None else told["node"]
            logger.warning("node %s of this job is refused: %s", node, told["reason"])
        elif event == "unmet":
            logger.info("node %s was not met: %s", told["node"], told["reason"])
        elif event == "alone":
            self._reading.over = True
            self.figures.alone = told["reason"]
            logger.warning("this node goes on alone: %s", told["reason"])
        elif event == "left":
            self._left = True
        elif event == "figures":
            for name in ("received_bytes", "sent_bytes", "wrong_blocks", "refused"):
                setattr(self.figures, name, told[name])


def joining(job: Job) -> Callable[[Staging], Exchange]:
    """How a staging begins to take part in `job`. Called while this process has one thread."""
    talker = Talker(main, quiet=not logger.isEnabledFor(logging.DEBUG))

    def join(staging: Staging) -> Exchange:
        original = staging.original
        exchange = Exchange(
            job,
            staging.layout,
            staging.staging_folder,
            staging.targets,
            (original.version, original.contents),
            talker,
        )
        exchange.wait_for_number(_NUMBER_SECONDS)
        return exchange

    return join
