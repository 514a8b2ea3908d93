"""How a load went on: samples of its figures over time, few enough to keep. Pure; one thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

#: Samples that are kept, whatever the load takes.
MOST_SAMPLES = 512
_FIRST_INTERVAL_SECONDS = 0.02


class Sample(NamedTuple):
    """The figures of one moment, `seconds` after the start of the load.

    `done_bytes` are no longer waited for: resident before, brought in by anyone on this node, or
    not to be read; `read_bytes` this process has brought in; `consumed_bytes` its consumer has
    passed. `claimed_bytes` are in flight: of the blocks that this process is at. `window_bytes` is
    how far it may be ahead of the consumers, `inflight_bytes` what the node may have in flight; 0:
    no limit.
    """

    seconds: float
    done_bytes: int = 0
    read_bytes: int = 0
    consumed_bytes: int = 0
    claimed_bytes: int = 0
    window_bytes: int = 0
    inflight_bytes: int = 0


@dataclass
class Series:
    """Samples in the order of time. Where there are too many, every second one is forgotten, and
    from then on every second one is left out.
    """

    most: int = MOST_SAMPLES
    interval_seconds: float = _FIRST_INTERVAL_SECONDS

    def __post_init__(self) -> None:
        self.samples: list[Sample] = []

    def is_due(self, seconds: float) -> bool:
        """Whether another sample is wanted so long after the start."""
        return not self.samples or seconds >= self.samples[-1].seconds + self.interval_seconds

    def add(self, sample: Sample) -> None:
        if len(self.samples) >= self.most:
            del self.samples[1::2]
            self.interval_seconds *= 2
        self.samples.append(sample)

    def to_dict(self) -> dict[str, Any]:
        """By column, in types that the json module writes."""
        columns: dict[str, Any] = {
            name: [getattr(sample, name) for sample in self.samples] for name in Sample._fields
        }
        columns["seconds"] = [round(sample.seconds, 6) for sample in self.samples]
        return {"interval_seconds": self.interval_seconds, **columns}
