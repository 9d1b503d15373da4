"""What the tests of invalidations listen with."""

import time
from collections.abc import Sequence

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.tracking.stream import TrackingState
from tests.support.waiting import until

LATE = 1.0
"""Seconds by which a test on a busy machine may notice late."""


class Listener:
    """A stream that records what it reports, in order; ``"flush"`` means a flush."""

    def __init__(self, client: RedisClient, *prefixes: bytes, max_staleness: float = 1.0) -> None:
        self.heard: list[bytes | str] = []
        self.trusted_when_flushed: list[bool] = []
        self.stream = client.invalidations(
            prefix="app", on_invalidate=self._invalidate, on_flush=self._flush, max_staleness=max_staleness
        )
        for prefix in prefixes or (b"app:",):
            self.stream.add_prefix(prefix)

    def _invalidate(self, keys: Sequence[bytes]) -> None:
        self.heard += [key for key in keys if not key.startswith(b"app:%probe:")]

    def _flush(self) -> None:
        self.heard.append("flush")
        self.trusted_when_flushed.append(self.trusted)

    @property
    def trusted(self) -> bool:
        return time.monotonic() < self.stream.trusted_until

    async def hears(self, *expected: bytes | str) -> None:
        """Wait until it has heard so many, and forget them."""
        await until(lambda: len(self.heard) >= len(expected))
        assert self.heard == list(expected)
        self.heard.clear()

    async def comes_to(self, state: TrackingState) -> None:
        await until(lambda: self.stream.state is state)

    async def is_trusted(self) -> None:
        """Wait until copies may be served, and forget what was heard before."""
        await until(lambda: self.trusted)
        self.heard.clear()
