"""How often one client address may ask: a bucket of permits for each, filled at a steady rate."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

BURST_S = 10.0
"""Permits of so many seconds may be used at once."""
MAX_ADDRESSES = 10_000
"""Addresses remembered; the one silent for longest is forgotten, its bucket full again."""


class Rates:
    """``per_s`` permits a second for each address; ``clock`` is any that does not step back, in seconds."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> float | None:
        """Use one permit: None, or the seconds until there is one again."""
        name, now_s, full = _network(address), self._clock(), self._per_s * BURST_S
        left, then_s = self._buckets.get(name, (full, now_s))
        left = min(full, left + (now_s - then_s) * self._per_s)
        taken = left >= 1.0
        self._buckets[name] = (left - 1.0 if taken else left, now_s)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return None if taken else (1.0 - left) / self._per_s

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._buckets)


def _network(address: str) -> str:
    """What counts as one client: an IPv4 address, or the 64 bits of an IPv6 one that a network is given."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
