"""Growing pauses between attempts.

Retry libraries (tenacity, stamina) sleep themselves; the line's loops must wake when the line stops, so they wait
themselves and ask here for how long.
"""

from __future__ import annotations


class Backoff:
    """Seconds to wait before each new attempt: `first`, then twice as long each time, but never more than `most`.

    Used by one thread. Both are seconds above 0; where `first` is the larger, every pause is `most`.
    """

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most = min(first, most), most
        self._next = self._first

    def next(self) -> float:
        """The pause after one more failure, in seconds."""
        seconds, self._next = self._next, min(2 * self._next, self._most)
        return seconds

    def reset(self) -> None:
        """An attempt succeeded: the next failure is followed by `first` again."""
        self._next = self._first
