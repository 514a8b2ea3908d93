"""How long to wait between two looks at what a loader touches: what it touches behind the last look
at a mapping, and then unmaps, is not seen. Pure; one thread.

While little is touched looks take a small part of a processor; the faster the loader is, the more
they may, up to a twentieth.
"""

from __future__ import annotations

# What may be touched between two looks, as far as their price allows it.
_STEP_BYTES = 16 * 1024**2
_LEAST_SECONDS = 0.005
_MOST_SECONDS = 1.0
# Of what a look takes, at the least.
_BUSY_PAUSES = 20.0


class LookPace:
    """Of one loader."""

    def __init__(self) -> None:
        self._bytes_per_s = 0.0

    def saw(self, touched_bytes: int, seconds: float) -> None:
        """So much was touched in so many seconds. A loader that comes to the next file is as fast
        as before, though nothing was seen of it yet.
        """
        if seconds > 0:
            self._bytes_per_s = max(touched_bytes / seconds, self._bytes_per_s / 2)

    def pause_seconds(self, look_seconds: float, idle_pauses: float) -> float:
        """Until the next look, of which one takes so long. `idle_pauses`: of a look, while hardly
        anything is touched.
        """
        most = max(_LEAST_SECONDS, min(idle_pauses * look_seconds, _MOST_SECONDS))
        least = min(max(_LEAST_SECONDS, _BUSY_PAUSES * look_seconds), most)
        if self._bytes_per_s <= 0:
            return most
        return min(max(_STEP_BYTES / self._bytes_per_s, least), most)
