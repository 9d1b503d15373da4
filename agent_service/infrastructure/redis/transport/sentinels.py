"""The sentinels of a target; connections that are opened at the same time share one question to them."""

import asyncio
from typing import Any

from redis.asyncio.sentinel import Sentinel

__all__ = ["SharedSentinel"]


class SharedSentinel(Sentinel):
    """Asks for the master; callers that ask while a question is under way share its answer."""

    _asking: "asyncio.Task[tuple[str, int]] | None" = None

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the master."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(service_name))
            self._asking.add_done_callback(_retrieve_exception)
        return await asyncio.shield(self._asking)

    async def _ask(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = await super().discover_master(service_name)
        finally:
            self._asking = None
        return found

    async def aclose(self) -> None:
        """Close the connections to the sentinels."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await asyncio.gather(*(each.aclose() for each in self.sentinels))


def _retrieve_exception(asked: "asyncio.Task[Any]") -> None:
    if not asked.cancelled():
        asked.exception()  # marks it as retrieved: all that waited may have been cancelled
