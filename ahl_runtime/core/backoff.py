"""Growing pauses between attempts.

Retry libraries (tenacity, stamina) sleep on their own. The loops of the line must wake up when the line stops. So each
loop does its own waiting, and this class gives the length of the pause.
"""

from __future__ import annotations


class Backoff:
    """Seconds to wait before each new attempt: `first`, then twice as long each time, but never more than `most`.

    For one thread. Both are seconds above 0. If `first` is larger than `most`, every pause is `most`.
    """

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most = min(first, most), most
        self._next = self._first

    def next(self) -> float:
        """The pause after one more failure, in seconds."""
        seconds, self._next = self._next, min(2 * self._next, self._most)
        return seconds

    def reset(self) -> None:
        """Call this after a success: the next pause is `first` again."""
        self._next = self._first
