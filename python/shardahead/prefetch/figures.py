"""What is known of a prefetch and of the load that it belongs to, without what ends them: a handle,
an iterator. Whoever watches a load holds these, and keeps nobody from being dropped. Any thread.
"""

from __future__ import annotations

from shardahead import _core
from shardahead.node.launcher import LocalTopology
from shardahead.node.page_keeping import keeping_reason, keeps_pages
from shardahead.prefetch.learning import Learning
from shardahead.prefetch.options import PrefetchOptions
from shardahead.prefetch.report import Report, make_report
from shardahead.prefetch.series import Sample
from shardahead.prefetch.waited import Waited
from shardahead.units import printable


class PrefetchFigures:
    """Of one prefetch. `path` is that of its first file."""

    def __init__(
        self,
        core: _core.Prefetch,
        options: PrefetchOptions,
        topology: LocalTopology,
        path: str,
        learning: Learning | None = None,
    ) -> None:
        self.core = core
        self.learning = learning
        self.options = options
        self.topology = topology
        self.waited: Waited = Waited()
        self._path = path
        self._keeping_reason = ""

    def report(self) -> Report:
        """The figures so far."""
        figures = self.core.report()
        learned = self.learning.figures() if self.learning is not None else None
        return make_report(
            figures,
            learned=learned.learned if learned is not None else "no",
            touched_bytes=learned.touched_bytes if learned is not None else None,
            waited_seconds=self.waited.seconds,
            keeps_pages=keeps_pages(figures.keeping),
            keeps_pages_reason=self._reason_of(figures.keeping),
            block_bytes=self.options.block_bytes,
            partition=self.core.partition_used,
            partition_reason=printable(self.core.partition_reason),
            local_rank=self.topology.rank,
            local_size=self.topology.size,
            topology_source=self.topology.source,
        )

    def _reason_of(self, keeping: str) -> str:
        """Found once: it looks at the mount."""
        if not self._keeping_reason:
            self._keeping_reason = keeping_reason(keeping, self._path)
        return self._keeping_reason


class LoadFigures:
    """Of one load: its prefetch, where it has one; what reads tensors into memory of their own; and
    how far its consumer is, where that is not told to the prefetch.
    """

    def __init__(self) -> None:
        self.prefetch: PrefetchFigures | None = None
        self.learning: Learning | None = None
        self.reader: _core.TensorReader | None = None
        self.mode: str | None = None  # of a weight iterator
        self.consumed_bytes: int = 0
        # Of a prefetch that is the whole load: what its consumer wants, 0 without one. Else None:
        # whoever has the load says when it is over.
        self.wanted_bytes: int | None = None

    def sample(self, seconds: float) -> Sample:
        read_bytes = self.reader.read_bytes if self.reader is not None else 0
        if self.prefetch is None:
            return Sample(seconds, read_bytes, read_bytes, self.consumed_bytes)
        progress = self.prefetch.core.progress()
        return Sample(
            seconds,
            progress.done_bytes + read_bytes,
            progress.read_bytes + read_bytes,
            max(progress.consumed_bytes, self.consumed_bytes),
            progress.claimed_bytes,
            progress.window_bytes,
            progress.inflight_bytes,
        )

    def is_over(self) -> bool:
        """Whether the prefetch is the whole load, and has ended; and its consumer is at the end."""
        if self.wanted_bytes is None or self.prefetch is None or not self.prefetch.core.done:
            return False
        return self.prefetch.core.progress().consumed_bytes >= self.wanted_bytes

    def cancel(self) -> None:
        if self.prefetch is not None:
            self.prefetch.core.cancel()

    def wait(self, seconds: float) -> None:
        """For the threads of the prefetch to end."""
        if self.prefetch is not None:
            self.prefetch.core.wait(seconds)
