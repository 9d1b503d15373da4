"""Identifiers that sort by creation time."""

import os
import threading
import time
from uuid import UUID

from agent_service.core.forking import renew_after_fork

__all__ = ["uuid7"]

_lock = threading.Lock()
_last = 0


def uuid7() -> UUID:
    """Make a version 7 UUID: a millisecond timestamp, then 74 bits that grow within the millisecond.

    Two calls in one process never return the same or a smaller value, so ids made in order sort in order (RFC 9562,
    section 6.2, method 2: a random start per millisecond, incremented by a random step).
    """
    global _last
    random = int.from_bytes(os.urandom(10), "big")
    value = ((time.time_ns() // 1_000_000) << 74) | (random & ((1 << 73) - 1))
    with _lock:
        if value <= _last:
            value = _last + 1 + (random >> 48)
        _last = value
    high, low = value >> 62, value & ((1 << 62) - 1)
    millis, rand_a = high >> 12, high & 0xFFF
    return UUID(int=(millis << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | low)


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


renew_after_fork(_renew_lock)
