"""A rate limit for each client: a bucket of requests for its address, filled at a steady rate.

FastAPI, starlette and uvicorn have no rate limit; this one also counts all addresses of an IPv6 client as one.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict

_MOST = 4096  # clients remembered; the one that was silent longest is forgotten first


class Rate:
    """`per_second`: the steady rate; a burst may have twice as many."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.most = max(1.0, 2 * per_second)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until this client may send a request; 0 if it may now, and then this request is counted."""
        now = time.monotonic()
        key = _client(address)
        left, then = self._buckets.pop(key, (self.most, now))
        left = min(self.most, left + (now - then) * self.per_second)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _MOST:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self.per_second


def _client(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one: a client may take any address of it."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return address
